"""Ancestral sampling: Algorithm 2 of Ho et al. 2020, between any two times s < t."""

from typing import Literal

import torch
from torch import Tensor

from diffusion.errors import UserError
from diffusion.process import q_posterior
from diffusion.samplers.base import Path, Sampler
from diffusion.schedule import Schedule, broadcast


class DDPM(Sampler):
    """x_s = mean of q(x_s | x_t, x_0) + posterior_std z, with the network's x_0.

    steps: how many, None for all T. variance: `fixed_small`, the posterior's own, or `fixed_large`, beta_t.
    """

    def __init__(self, steps: int | None = None, variance: Literal["fixed_small", "fixed_large"] = "fixed_small"):
        super().__init__(steps)
        if variance not in ("fixed_small", "fixed_large"):
            raise UserError(f"sampler.variance={variance}: expected fixed_small or fixed_large")
        self.variance = variance

    def step(self, path: Path, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        x_0 = path.predict(x_t, t).x_0
        mean, variance = q_posterior(path.schedule, x_0, x_t, s, t)
        if self.variance == "fixed_large":
            variance = broadcast(self._beta(path.schedule, s, t), x_t)
        return mean + variance.sqrt() * path.noise()

    @staticmethod
    def _beta(schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
        """beta_t, but 0 for the images whose step ends at 0: the last step adds no noise."""
        return torch.where(s.to(schedule.beta(s, t)) > 0, schedule.beta(s, t), 0.0)
