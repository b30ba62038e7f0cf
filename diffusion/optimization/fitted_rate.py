"""The learning rate of a run: a function of the optimizer step and of the run's number of steps."""

import math
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_info
from torch.optim.lr_scheduler import LRScheduler

from diffusion.optimization.lr_schedule import LearningRate

_MEASURED = 0.1  # of the time limit: after it the number of steps is estimated
_AIMED_AT = 0.95  # of the time limit: leaves time for validations, so that the schedule still completes


class Rate(LRScheduler):
    """The learning rate, fitted to the number of steps of the run: plan.lr * plan.factor(step, end).

    max_steps and max_epochs give this number. A time limit is converted to steps once, from the speed in its first
    tenth (with validation and previews), and then fixed: the rate is a function of the step, a resumed run uses the
    same, and the time remains a hard limit. The nearest known limit counts.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, plan: LearningRate):
        self.plan = plan
        # Of each group, as configured for this run: loading a checkpoint overwrites them with the saved ones.
        self._options = [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ]
        self.counted: int | None = None  # steps of the run by max_steps and max_epochs
        self.estimated: int | None = None  # steps by the time limit
        self.seconds: float | None = None  # the time limit
        self.timed_from: int | None = None  # the step at which its clock started
        super().__init__(optimizer)

    @property
    def end(self) -> int | None:
        """The steps of the whole run, None if unknown (yet)."""
        return min((steps for steps in (self.counted, self.estimated) if steps is not None), default=None)

    def get_lr(self) -> list[float | torch.Tensor]:
        return [lr * self.plan.factor(self.last_epoch, self.end) for lr in self.base_lrs]

    def begin(self, trainer: Trainer) -> None:
        """Called at the start of training. A resumed run uses its current plan and limits, not the saved ones."""
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
        """Estimates the steps of the run once enough time has passed; called between steps, with the same result in
        every process. before: an earlier estimate, for another limit."""
        timer, first = _timer(trainer), self.timed_from
        if self.seconds is None or self.estimated is not None or timer is None or first is None:
            return
        done, elapsed = trainer.global_step - first, timer.time_elapsed()
        allowed = math.ceil(done * _AIMED_AT * self.seconds / elapsed) if elapsed >= _MEASURED * self.seconds else 0
        allowed = trainer.strategy.broadcast(allowed)
        if not allowed:
            return
        old, estimated = self.end, first + allowed
        self.estimated = estimated
        end = estimated if self.counted is None else min(self.counted, estimated)
        half = end // 2
        if self.plan.factor(half, old) != self.plan.factor(half, end):
            was = f"{before:,} -> " if before else ""
            rank_zero_info(
                f"learning rate: fitted to {was}{end:,} steps, about what "
                f"trainer.max_minutes={self.seconds / 60:g} allows at the speed of this run"
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
        # Format 0 used torch's LambdaLR.
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "lr_lambdas"})


def _timer(trainer: Trainer) -> Timer | None:
    """Lightning's timer of a run with a time limit."""
    callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - undeclared in Lightning
    return next((each for each in callbacks if isinstance(each, Timer) and each._duration is not None), None)
