"""A strategy: any of Lightning's."""

from lightning.pytorch.strategies import SingleDeviceStrategy


class Counted(SingleDeviceStrategy):
    """One device, and at the end a line that says how many steps the optimiser took, and of what.

    called: what the steps are called.
    """

    def __init__(self, device: str = "cpu", called: str = "steps"):
        super().__init__(device)
        self.called, self.taken = called, 0

    def optimizer_step(self, *args, **kwargs):
        self.taken += 1
        return super().optimizer_step(*args, **kwargs)

    def teardown(self) -> None:
        print(f"{self.taken} {self.called} on {self.root_device}", flush=True)
        super().teardown()
