"""The learning rate of a run: a function of the optimiser step, and of where the run ends."""

import math
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_info
from torch.optim.lr_scheduler import LRScheduler

_MEASURED = 0.1  # of the minutes: how far a run has come in them tells how many steps it will take
_AIMED_AT = 0.95  # of them: a validation that is still to come must not leave the rate high at their end


class Plan(Protocol):
    """What the rate should be; `optimizers.AdamW` is one."""

    @property
    def lr(self) -> float: ...

    @property
    def warmup_steps(self) -> int: ...

    @property
    def warmup_share(self) -> float | None: ...

    def warmup(self, end: int | None) -> int:
        """The steps of the warm-up in a run of `end` steps, None where that is not known."""
        ...

    def factor(self, step: int, end: int | None) -> float:
        """The share of lr used in optimiser step `step`, counted from 0."""
        ...


class Rate(LRScheduler):
    """The learning rate of a run, fitted into the steps that the run takes: plan.lr * plan.factor(step, end).

    By max_steps and max_epochs these are known. By a limit in time they are estimated once, from how far the run has
    come in a tenth of it (validation and previews included), and fixed from then on: the rate is a function of the
    step, a run that is resumed takes the same, and the time stays a hard stop. The nearest of the limits counts. So
    long as a limit is not known in steps, the others count.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, plan: Plan):
        self.plan = plan
        # Of each group, as this run is configured: a checkpoint that is loaded brings those it was saved with.
        self._options = [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ]
        self.counted: int | None = None  # steps of the run by max_steps and max_epochs
        self.estimated: int | None = None  # and by its seconds
        self.seconds: float | None = None
        self.timed_from: int | None = None  # the step at which they began to count
        super().__init__(optimizer)

    @property
    def end(self) -> int | None:
        """The steps of the whole run, None where they are not known (yet)."""
        return min((steps for steps in (self.counted, self.estimated) if steps is not None), default=None)

    def get_lr(self) -> list[Any]:
        return [lr * self.plan.factor(self.last_epoch, self.end) for lr in self.base_lrs]

    def begin(self, trainer: Trainer) -> None:
        """At the start of training. A run that goes on does so with the plan and the limits that it is given now, not
        with those it was saved with."""
        for group, options in zip(self.optimizer.param_groups, self._options, strict=True):
            group |= options
            group["initial_lr"] = self.plan.lr
        if self.base_lrs[0] != self.plan.lr:
            rank_zero_info(f"learning rate: {self.base_lrs[0]:g} -> {self.plan.lr:g}")
        self.base_lrs = [self.plan.lr] * len(self.base_lrs)
        steps, timer, before = trainer.estimated_stepping_batches, _timer(trainer), self.estimated
        self.counted = int(steps) if 0 < steps < math.inf else None
        seconds = timer and timer._duration
        if self.seconds != seconds:
            self.seconds, self.estimated = seconds, None
        if timer is not None and self.timed_from is None:
            self.timed_from = 0 if timer._offset else trainer.global_step
        self._say_warmup()
        self.estimate(trainer, before)
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr

    def estimate(self, trainer: Trainer, before: int | None = None) -> None:
        """Once it is time, between two steps: how many there will be, the same number in every process. before: what
        was estimated for another limit."""
        timer = _timer(trainer)
        if self.seconds is None or self.estimated is not None or timer is None or self.timed_from is None:
            return
        done, elapsed = trainer.global_step - self.timed_from, timer.time_elapsed()
        allowed = math.ceil(done * _AIMED_AT * self.seconds / elapsed) if elapsed >= _MEASURED * self.seconds else 0
        allowed = trainer.strategy.broadcast(allowed)
        if not allowed:
            return
        old, self.estimated = self.end, self.timed_from + allowed
        end = self.estimated if old is None else min(old, self.estimated)
        half = end // 2
        if self.plan.factor(half, old) != self.plan.factor(half, end):
            was = f"{before:,} -> " if before else ""
            rank_zero_info(
                f"learning rate: fitted to {was}{end:,} steps, about what "
                f"trainer.max_minutes={self.seconds / 60:g} allow at the speed of this run"
            )
            self._say_warmup()

    def _say_warmup(self) -> None:
        if (steps := self.plan.warmup(self.end)) < self.plan.warmup_steps:
            rank_zero_info(
                f"learning rate: a warm-up of {self.plan.warmup_steps:,} steps is shortened to {steps:,}, since the "
                f"run takes {self.end:,} (optimizer.warmup_share={self.plan.warmup_share:g})"
            )

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().state_dict().items() if name not in ("plan", "_options")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Format 0 had torch's LambdaLR in this place.
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "lr_lambdas"})


def _timer(trainer: Trainer) -> Timer | None:
    """Lightning's clock of a run with a limit in time."""
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] (set by a connector)
    return next((each for each in callbacks if isinstance(each, Timer) and each._duration is not None), None)
