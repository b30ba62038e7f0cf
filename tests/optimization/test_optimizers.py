"""Optimisers, and what share of lr they use in which step."""

import torch
from torch import nn

from diffusion.optimization.optimizers import AdamW


def test_warm_up_counts_optimiser_steps():
    plan = AdamW(lr=1.0, warmup_steps=4)
    optimizer, lr = plan.build([nn.Parameter(torch.zeros(1))])
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        lr.step()
    assert rates == [0.25, 0.5, 0.75, 1, 1, 1]
