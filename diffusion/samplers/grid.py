"""Which times a sampler visits: float64 (steps + 1,), falling from T to 0."""

import torch
from torch import Tensor

from diffusion.errors import UserError
from diffusion.schedule import Schedule


def trailing(schedule: Schedule, steps: int | None) -> Tensor:
    """T, then evenly down to 0, rounded to whole steps (Lin et al. 2023): every step count starts from T.

    steps: 1..T, None for all T. Raises UserError outside.
    """
    steps = schedule.T if steps is None else steps
    if not 1 <= steps <= schedule.T:
        raise UserError(f"sampler.steps={steps}: expected 1 to {schedule.T}, the steps of the schedule")
    return (schedule.T * (1 - torch.arange(steps + 1, dtype=torch.float64) / steps)).round()
