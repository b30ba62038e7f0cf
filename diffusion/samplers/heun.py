"""Heun's second-order steps: Algorithm 2 of Karras et al. 2022 (EDM)."""

import torch
from torch import Tensor

from diffusion.samplers.base import Path, combine
from diffusion.samplers.euler import Euler


class Heun(Euler):
    """An Euler step, then again with the mean of the slopes at both ends; two evaluations, but one where s = 0."""

    def step(self, path: Path, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        x_s = super().step(path, x_t, t, s)
        start = path.history[-1]  # at t, or at t_hat after churn
        if not (s > 0).any() or (start.alpha == 0).any():
            return x_s  # eps has no value at 0, and the slope none where alpha is 0
        end = path.predict(x_s, torch.where(s > 0, s, t))
        alpha_s, sigma_s = path.schedule(s)
        half = torch.where(s > 0, sigma_s - alpha_s * start.sigma / start.alpha, 0.0) / 2
        return combine((torch.ones_like(half), x_s), (half, end.eps - start.eps))
