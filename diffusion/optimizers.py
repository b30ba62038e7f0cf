"""Optimisers and their learning rates, as a function of the optimiser step."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from diffusion.errors import UserError


@dataclass(frozen=True)
class Constant:
    """The learning rate stays as it is."""

    def __call__(self, step: int) -> float:
        """The share of lr used in optimiser step `step`, counted from 0."""
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from lr to final * lr over `steps` optimiser steps (Loshchilov & Hutter 2017), then constant."""

    steps: int
    final: float = 0.0

    def __post_init__(self):
        if self.steps is None:
            raise UserError("lr_schedule=cosine needs to know its end: say lr_schedule.steps= or trainer.max_steps=")

    def __call__(self, step: int) -> float:
        done = min(1.0, step / self.steps)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class InverseSqrt:
    """Constant for `steps` optimiser steps, then lr / sqrt(step / steps) (Karras et al. 2024, Eq. 67)."""

    steps: int

    def __call__(self, step: int) -> float:
        return 1 / math.sqrt(max(1.0, step / self.steps))


@dataclass(frozen=True)
class AdamW:
    """AdamW at lr * decay(step), with a linear warm-up over `warmup_steps` optimiser steps."""

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup_steps: int = 500
    decay: Callable[[int], float] = Constant()

    def factor(self, step: int) -> float:
        """The share of lr used in optimiser step `step`, counted from 0."""
        return min(1.0, (step + 1) / max(1, self.warmup_steps)) * self.decay(step)

    def build(self, parameters: Iterable[nn.Parameter]) -> tuple[torch.optim.AdamW, LambdaLR]:
        """The fused optimiser over the parameters and its schedule, to be stepped once per optimiser step."""
        optimizer = torch.optim.AdamW(
            parameters, lr=self.lr, betas=tuple(self.betas), weight_decay=self.weight_decay, fused=True
        )
        return optimizer, LambdaLR(optimizer, self.factor)
