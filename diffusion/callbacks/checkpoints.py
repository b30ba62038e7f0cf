"""Keeps `last.ckpt` and `best.ckpt` of a run, also of one that is told to stop."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

_TOGETHER = 20  # steps between two looks at the clock in several processes: there each look is a broadcast


class Checkpoints(Checkpoint):
    """Writes folder/last.ckpt every `minutes`, after each validation, and when the run is told to stop; and
    folder/best.ckpt whenever val/loss is the lowest so far. Their names never change, so no `=` is in them.

    Ctrl+C and SIGTERM end the run after the step in which they arrive, so that what is saved is a whole step; a second
    Ctrl+C ends it at once. Lightning runs callbacks of this base class last: the averaged weights of the step are in.
    """

    def __init__(self, folder: Path | str, minutes: float = 10.0):
        self.folder = Path(folder)
        self.minutes = minutes
        self.best = float("inf")
        self._saved_at = time.monotonic()
        self._stop = False
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._on_signal)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        due, stop = time.monotonic() - self._saved_at > 60 * self.minutes, self._stop
        if trainer.world_size > 1:  # saving and stopping are collective acts: rank 0 decides for all
            if trainer.global_step % _TOGETHER:
                return
            due, stop = trainer.strategy.broadcast((due, stop))
        if due or stop:
            self._save(trainer, "last")
        if stop:
            raise KeyboardInterrupt

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        loss = trainer.callback_metrics["val/loss"].item()
        if loss < self.best:
            self.best = loss
            self._save(trainer, "best")
        self._save(trainer, "last")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _on_signal(self, number: int, _: Any) -> None:
        if self._stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._stop = True

    def _save(self, trainer: Trainer, name: str) -> None:
        trainer.save_checkpoint(self.folder / f"{name}.ckpt", weights_only=False)
        self._saved_at = time.monotonic()
