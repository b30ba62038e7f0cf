"""The learning rate as a function of the optimizer step: a warm-up, then a schedule."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from diffusion.config.value_types import Count, Fraction, Natural, Positive, checked


class RateSchedule(ABC):
    """How the learning rate changes after the warm-up."""

    @abstractmethod
    def __call__(self, step: int, end: int | None = None) -> float:
        """The factor of lr in optimizer step `step`, counted from 0, of a run of `end` steps (None: unknown)."""


@dataclass(frozen=True)
class Constant(RateSchedule):
    """A constant learning rate."""

    def __call__(self, step: int, end: int | None = None) -> float:
        return 1.0


@checked
@dataclass(frozen=True)
class CosineDecay(RateSchedule):
    """Half a cosine from lr to final * lr over `steps` optimizer steps (Loshchilov & Hutter 2017), then constant.

    steps: None is to the end of the run; while that is unknown, the rate stays constant.
    """

    steps: Count | None = None
    final: Fraction = 0.0

    def __call__(self, step: int, end: int | None = None) -> float:
        end = self.steps or end
        done = min(1.0, step / end) if end else 0.0
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


@checked
@dataclass(frozen=True)
class InverseSqrt(RateSchedule):
    """Constant for `steps` optimizer steps, then lr / sqrt(step / steps) (Karras et al. 2024, Eq. 67)."""

    steps: Count

    def __call__(self, step: int, end: int | None = None) -> float:
        return 1 / math.sqrt(max(1.0, step / self.steps))


@checked
@dataclass(frozen=True)
class LearningRate:
    """lr * decay(step, end), with a linear warm-up over `warmup_steps` optimizer steps, but at most `warmup_share` of
    the run (None: no limit)."""

    lr: Positive = 2e-4
    warmup_steps: Natural = 500
    warmup_share: Fraction | None = 0.5
    decay: RateSchedule = Constant()

    def warmup(self, end: int | None = None) -> int:
        """The steps of the warm-up in a run of `end` steps."""
        if end is None or self.warmup_share is None:
            return self.warmup_steps
        return min(self.warmup_steps, int(self.warmup_share * end))

    def factor(self, step: int, end: int | None = None) -> float:
        """The factor of lr in optimizer step `step`, counted from 0, of a run of `end` steps (None: unknown)."""
        return min(1.0, (step + 1) / max(1, self.warmup(end))) * self.decay(step, end)
