"""Euler steps of the probability flow, with the churn of Karras et al. 2022 (EDM)."""

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from diffusion.config.value_types import Count, NonNegative, NumberOrInfinity, Times, checked
from diffusion.samplers.base import Sampler, SolverState, combine


@checked
class Euler(Sampler):
    """Algorithm 2 of Karras et al. 2022 without its correction; without churn it is DDIM with eta = 0.

    EDM's variables are x / alpha and sigma / alpha, in which d(x / alpha) / d(sigma / alpha) = eps.
    churn: their S_churn, noise added over the whole trajectory. churn_min, churn_max: the range of sigma / alpha in
    which it is added (S_tmin, S_tmax). noise_scale: their S_noise.
    """

    def __init__(
        self,
        steps: Count | None = None,
        times: Times = "angle",
        churn: NonNegative = 0.0,
        churn_min: NonNegative = 0.0,
        churn_max: Annotated[NumberOrInfinity, Ge(0)] = math.inf,
        noise_scale: NonNegative = 1.0,
    ):
        super().__init__(steps, times)
        self.churn = churn
        self.draws_noise = churn > 0
        self.churn_min, self.churn_max = churn_min, churn_max
        self.noise_scale = noise_scale

    def unused(self) -> dict[str, str]:
        if self.churn:
            return {}
        names = ("sampler.churn_min", "sampler.churn_max", "sampler.noise_scale")
        return dict.fromkeys(names, "without sampler.churn=... no noise is added")

    def step(self, solver: SolverState, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        if self.churn:
            x_t, t = self._add_noise(solver, x_t, t)
        prediction = solver.predict(x_t, t)
        alpha_s, sigma_s = solver.schedule(s)
        return combine((alpha_s, prediction.x_0), (sigma_s, prediction.eps))

    def _add_noise(self, solver: SolverState, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x_hat at t_hat, where (sigma / alpha)_hat = (1 + gamma) sigma / alpha, at most T (lines 5-6)."""
        schedule = solver.schedule
        alpha, sigma = schedule(t)
        ratio = sigma / alpha
        gamma = min(self.churn / solver.steps, 2**0.5 - 1)
        gamma = torch.where((ratio >= self.churn_min) & (ratio <= self.churn_max), gamma, 0.0)
        t_hat = torch.maximum(schedule.t_of_log_snr(-2 * (ratio * (1 + gamma)).log()), t.to(ratio))
        alpha_hat, sigma_hat = schedule(t_hat)
        added = alpha_hat * ((sigma_hat / alpha_hat) ** 2 - ratio**2).clamp(min=0).sqrt()
        return combine((alpha_hat / alpha, x_t), (self.noise_scale * added, solver.noise())), t_hat
