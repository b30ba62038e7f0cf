"""Optimisers and their learning rates, as a function of the optimiser step."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class AdamW:
    """AdamW with a linear warm-up over `warmup_steps` optimiser steps, then constant `lr`."""

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup_steps: int = 500

    def warmup(self, step: int) -> float:
        """The share of lr used in optimiser step `step`, counted from 0."""
        return min(1.0, (step + 1) / max(1, self.warmup_steps))

    def build(self, parameters: Iterable[nn.Parameter]) -> tuple[torch.optim.AdamW, LambdaLR]:
        """The fused optimiser over the parameters and its schedule, to be stepped once per optimiser step."""
        optimizer = torch.optim.AdamW(
            parameters, lr=self.lr, betas=tuple(self.betas), weight_decay=self.weight_decay, fused=True
        )
        return optimizer, LambdaLR(optimizer, self.warmup)
