"""Keeps `last.ckpt` and `best.ckpt` of a run."""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

_CLOCK_STEPS = 20  # steps between looks at the clock: with several processes each look is a broadcast


class Checkpoints(Checkpoint):
    """Writes folder/last.ckpt every `minutes`, after each validation and at the end, also an early one; and
    folder/best.ckpt whenever val/loss is the lowest so far. Their names never change, so no `=` is in them.

    Lightning runs callbacks of this base class last, so the averaged weights of the step are in the file.
    """

    def __init__(self, folder: Path | str, minutes: float = 10.0):
        self.folder = Path(folder)
        self.minutes = minutes
        self.best = float("inf")
        self._saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step % _CLOCK_STEPS:
            return
        # Rank 0's clock decides: saving is a collective act, and clocks differ.
        due = time.monotonic() - self._saved_at > 60 * self.minutes
        if trainer.strategy.broadcast(due) if trainer.world_size > 1 else due:
            self._save(trainer, "last")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        loss = trainer.callback_metrics["val/loss"].item()
        if loss < self.best:
            self.best = loss
            self._save(trainer, "best")
        self._save(trainer, "last")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # One process of several cannot save alone: the others may never come.
        if trainer.world_size == 1 and trainer.global_step > 0:
            self._save(trainer, "last")

    def _save(self, trainer: Trainer, name: str) -> None:
        trainer.save_checkpoint(self.folder / f"{name}.ckpt", weights_only=False)
        self._saved_at = time.monotonic()
