"""An estimate of a run's duration after its first steps."""

import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from diffusion.training import lightning_counters
from diffusion.training.callbacks.validations import SHARE, Validations
from diffusion.training.lightning_access import callback_of

_WARM_UP = 10  # first steps, which are not typical
_STEPS, _SECONDS = 20, 2.0  # minimum length of the measurement


class Forecast(Callback):
    """Prints the remaining time of the run once per session, estimated from a few steps after the first ones, without
    the validations between them. A run that ends earlier prints nothing."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first = trainer.global_step
        self._since: tuple[int, float] | None = None  # step and clock at the start of the measurement
        self._paused: float | None = None  # clock at the start of the pause
        self._reported = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, now = trainer.global_step, time.monotonic()
        if self._reported or step < self._first + _WARM_UP:
            return
        if self._since is None:
            self._since = step, now
            return
        steps, seconds = step - self._since[0], now - self._since[1]
        if steps >= _STEPS and seconds >= _SECONDS:
            self._reported = True
            if trainer.is_global_zero and trainer.progress_bar_callback and not lightning_counters.run_ends(trainer):
                trainer.progress_bar_callback.print(text(trainer, seconds / steps))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ends the pause: after a validation, its checkpoint is written by now."""
        if self._paused is not None and self._since is not None:
            step, clock = self._since
            self._since = step, clock + time.monotonic() - self._paused
        self._paused = None


def text(trainer: Trainer, seconds: float) -> str:
    """The line that is printed. seconds: per step."""
    validations = callback_of(trainer, Validations)
    by_clock = validations is not None and not validations.validate.given
    whole = seconds / (1 - SHARE) if by_clock else seconds  # with its share of the validations
    left, note = trainer.estimated_stepping_batches - trainer.global_step, "" if by_clock else ", without validations"
    timer = callback_of(trainer, Timer)
    time_left = timer.time_remaining() if timer else None
    if time_left is not None and time_left < left * whole:
        left = round(time_left / whole)
        lasts = duration(time_left)
    elif math.isinf(left):
        return f"{seconds:.3g} s a step{note}; no limit ends the run"
    else:
        lasts = duration(left * whole)
    line = f"about {lasts} for {left:,} more steps ({seconds:.3g} s a step{note})"
    due = None if validations is None else _next_pictures(trainer, validations)
    pictures = "" if due is None else f"; pictures at step {trainer.global_step + due:,}, in {duration(due * whole)}"
    return line + pictures


def _next_pictures(trainer: Trainer, validations: Validations) -> int | None:
    """Steps until the next pictures if their cadence is in steps or epochs; else None."""
    cadence = validations.preview if validations.preview.given else validations.validate
    step, per_epoch = trainer.global_step, trainer.num_training_batches // trainer.accumulate_grad_batches
    lengths = [cadence.every_n_steps, cadence.every_n_epochs and cadence.every_n_epochs * per_epoch]
    due = [length - step % length for length in lengths if length]
    return min(due) if due and cadence.every_n_minutes is None else None


def duration(seconds: float) -> str:
    for unit, length in ("days", 86400), ("hours", 3600), ("minutes", 60):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}" if seconds < 10 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
