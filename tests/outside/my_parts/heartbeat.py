"""A callback: any of Lightning's."""

import time
from pathlib import Path

from lightning.pytorch import Callback

from diffusion.config.value_types import Count, NonNegative, checked


@checked
class Heartbeat(Callback):
    """Writes the number of the step into `heartbeat.txt` of the run folder, and rests: a machine that is shared.

    run_folder: given by the program. every: steps. rest: seconds.
    """

    def __init__(self, run_folder: Path, every: Count = 1, rest: NonNegative = 0.0):
        self.file, self.every, self.rest = run_folder / "heartbeat.txt", every, rest

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.is_global_zero and trainer.global_step % self.every == 0:
            self.file.write_text(f"{trainer.global_step}\n")
            time.sleep(self.rest)
