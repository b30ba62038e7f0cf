"""When a run is validated, and which validations have pictures."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion.training import lightning_counters
from diffusion.training.cadence import Cadence

SHARE = 0.1  # of the time, at most, for validations with their pictures and checkpoints
_SPREAD = 0.01  # of the training so far, at least, between two: limits the validations of a long run


class Validations(Callback):
    """Validates after whole optimizer steps, also in the middle of an epoch, and always at the end of the run.

    Without a given cadence the first validation follows the first step, as an early test of all parts; the next follows
    when training since then has taken nine times as long as that validation with its pictures and its checkpoint. Time
    is measured by rank 0, which broadcasts it at a few steps known to all ranks, and stored in checkpoints. The times
    of validations do not affect the weights.

    validate, preview: the cadences of validations and of pictures; without one, every validation has pictures. Pictures
    that are due trigger a validation, in which the module has the averaged weights.
    """

    def __init__(self, validate: Cadence | None = None, preview: Cadence | None = None) -> None:
        self.validate = validate or Cadence()
        self.preview = preview or Cadence()
        self.drawing = True
        """Whether the current or last validation has pictures."""
        self._trained = self._since = self._since_drawn = 0.0  # seconds of training: all, since validation and pictures
        self._cost = 0.0  # seconds of the last validation
        self._under_way = False

    def state_dict(self) -> dict[str, Any]:
        cost = time.monotonic() - self._mark if self._under_way else self._cost
        seconds = {"trained": self._trained, "since": self._since, "since_drawn": self._since_drawn, "cost": cost}
        return {**seconds, "drawing": self.drawing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._trained, self._since = state_dict["trained"], state_dict["since"]
        self._since_drawn, self._cost = state_dict["since_drawn"], state_dict["cost"]
        self.drawing = state_dict["drawing"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        lightning_counters.leave_validations(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        lightning_counters.validate_next(trainer, lightning_counters.resumes_at_validation(trainer))
        self._mark = time.monotonic()
        self._step = self._validated_step = trainer.global_step
        self._look_at = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        lightning_counters.validate_next(trainer, False)
        if self._under_way:
            self._cost, self._mark = time.monotonic() - self._mark, time.monotonic()
            self._under_way = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        steps = trainer.global_step if trainer.global_step > self._step else None
        epochs = lightning_counters.epochs_ended(trainer)
        if steps is None and epochs is None:
            return  # gradients are being accumulated
        self._step = trainer.global_step
        self._tick()
        validates, draws = self._by_clock(trainer)
        draws |= self.preview.counts(steps, epochs)
        validates |= self.validate.counts(steps, epochs) or lightning_counters.run_ends(trainer)
        self.drawing = draws or not self.preview.given
        lightning_counters.validate_next(trainer, validates or draws)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.drawing |= lightning_counters.run_ends(trainer)
        self._since, self._since_drawn = 0.0, 0.0 if self.drawing else self._since_drawn
        self._validated_step = trainer.global_step
        self._mark, self._under_way = time.monotonic(), True

    def seconds_left(self) -> tuple[float, float]:
        """Seconds of training, by the clock of this process, to the next validation and to the next pictures."""
        every = self.validate.seconds
        if not self.validate.given:
            every = max((1 / SHARE - 1) * self._cost, _SPREAD * self._trained)
        validation = every - self._since
        return validation, self.preview.seconds - self._since_drawn if self.preview.given else validation

    def _tick(self) -> None:
        now = time.monotonic()
        seconds, self._mark = now - self._mark, now
        self._trained += seconds
        self._since += seconds
        self._since_drawn += seconds

    def _by_clock(self, trainer: Trainer) -> tuple[bool, bool]:
        """Whether a validation and pictures are due by the clock of rank 0. Checked when about half of the remaining
        time has passed, and after at most twice as many steps as since the last validation."""
        left = self.seconds_left()
        if min(left) == float("inf") or trainer.global_step < self._look_at:
            return False, False
        steps = max(trainer.global_step - self._validated_step, 1)
        wait = max(1, min(steps, int(steps * min(left) / max(self._since, 1e-9) / 2)))
        due, wait = trainer.strategy.broadcast(([seconds <= 0 for seconds in left], wait))
        self._look_at = trainer.global_step + wait
        return due[0], due[1] and self.preview.given
