"""How long a run will take, as soon as its first steps tell."""

import math
import time
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Timer

from diffusion.lit.module import LitDiffusion
from diffusion.training.callbacks import loops, of_trainer
from diffusion.training.callbacks.validations import SHARE, Validations

_WARM_UP = 10  # steps that are not typical
_STEPS, _SECONDS = 20, 2.0  # of what is measured, at least


class Forecast(Callback):
    """Says once in a session how long what is left of the run will take, by the time of a few steps after the first;
    validations in between are not counted. A run that is over before that says nothing."""

    def on_train_start(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        self._first = trainer.global_step
        self._since: tuple[int, float] | None = None  # step and clock where the measurement began
        self._paused: float | None = None  # since when
        self._said = False

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        step, now = trainer.global_step, time.monotonic()
        if self._said or step < self._first + _WARM_UP:
            return
        if self._since is None:
            self._since = step, now
            return
        steps, seconds = step - self._since[0], now - self._since[1]
        if steps >= _STEPS and seconds >= _SECONDS:
            self._said = True
            if trainer.is_global_zero and trainer.progress_bar_callback and not loops.run_ends(trainer):
                trainer.progress_bar_callback.print(text(trainer, seconds / steps))

    def on_validation_start(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        self._paused = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """After a validation its checkpoint is written by now, too."""
        if self._paused is not None and self._since is not None:
            step, clock = self._since
            self._since = step, clock + time.monotonic() - self._paused
        self._paused = None


def text(trainer: Trainer, seconds: float) -> str:
    """seconds: of a step."""
    validations = of_trainer.callback(trainer, Validations)
    by_clock = validations is not None and not validations.validate.given
    whole = seconds / (1 - SHARE) if by_clock else seconds  # with its share of a validation
    left, note = trainer.estimated_stepping_batches - trainer.global_step, "" if by_clock else ", without validations"
    timer = of_trainer.callback(trainer, Timer)
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
    """Steps until those whose moment is a number of steps or epochs; None for others."""
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
