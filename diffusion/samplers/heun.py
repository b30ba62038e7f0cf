"""Heun's second-order steps: Algorithm 2 of Karras et al. 2022 (EDM)."""

import math
import warnings
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from diffusion.config.values import Count, NonNegative, NumberOrInfinity, Times, checked
from diffusion.ground.errors import Notice
from diffusion.samplers.base import SolverState, combine
from diffusion.samplers.euler import Euler
from diffusion.schedule import Schedule

_FEW = (
    10  # network evaluations under which its images are worse than those of one-evaluation solvers (docs/samplers.md)
)


@checked
class Heun(Euler):
    """An Euler step, then again with the mean of the slopes at both ends; two evaluations, but one where s = 0."""

    evaluations = 2

    def __init__(
        self,
        steps: Count | None = None,
        times: Times = "karras",
        churn: NonNegative = 0.0,
        churn_min: NonNegative = 0.0,
        churn_max: Annotated[NumberOrInfinity, Ge(0)] = math.inf,
        noise_scale: NonNegative = 1.0,
    ):
        super().__init__(steps, times, churn, churn_min, churn_max, noise_scale)

    def check(self, schedule: Schedule, learns_variance: bool = False) -> None:
        """Says which sampler is better for so few evaluations."""
        super().check(schedule, learns_variance)
        steps = len(self.times(schedule)) - 1
        if (nfe := 2 * steps - 1) < _FEW:
            warnings.warn(
                f"sampler=heun: {steps} steps are {nfe} network evaluations, too few for it; better images with as "
                f"many by sampler=dpm_solver_pp sampler.steps={nfe}",
                Notice,
                stacklevel=1,  # said once, whoever asks
            )

    def step(self, solver: SolverState, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        x_s = super().step(solver, x_t, t, s)
        start = solver.history[-1]  # at t, or at t_hat after churn
        if not (s > 0).any() or (start.alpha == 0).any():
            return x_s  # eps has no value at 0, and the slope none where alpha is 0
        end = solver.predict(x_s, torch.where(s > 0, s, t))
        alpha_s, sigma_s = solver.schedule(s)
        half = torch.where(s > 0, sigma_s - alpha_s * start.sigma / start.alpha, 0.0) / 2
        return combine((torch.ones_like(half), x_s), (half, end.eps - start.eps))
