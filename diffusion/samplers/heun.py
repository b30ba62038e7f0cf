"""Heun's second-order steps: Algorithm 2 of Karras et al. 2022 (EDM)."""

import math
import warnings
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from diffusion.config.value_types import Count, NonNegative, NumberOrInfinity, Times, checked
from diffusion.ground.errors import Notice
from diffusion.samplers.base import SolverState, combine
from diffusion.samplers.euler import Euler
from diffusion.schedule import Schedule

_FEW = 10  # with fewer network evaluations one-evaluation solvers are better (docs/samplers.md)


@checked
class Heun(Euler):
    """An Euler step, corrected with the mean of the slopes at both ends: two evaluations, one in the last step."""

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
        """Also issues a Notice if there are too few evaluations for this sampler."""
        super().check(schedule, learns_variance)
        steps = len(self.times(schedule)) - 1
        if (nfe := 2 * steps - 1) < _FEW:
            warnings.warn(
                f"sampler=heun: {steps} steps are {nfe} network evaluations, too few for it; the same number gives "
                f"better images with sampler=dpm_solver_pp sampler.steps={nfe}",
                Notice,
                stacklevel=1,  # shown once, for any caller
            )

    def step(self, solver: SolverState, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        x_s = super().step(solver, x_t, t, s)
        start = solver.history[-1]  # at t, or at t_hat after churn
        if not (s > 0).any() or (start.alpha == 0).any():
            return x_s  # eps is undefined at s = 0, the slope where alpha = 0
        end = solver.predict(x_s, torch.where(s > 0, s, t))
        alpha_s, sigma_s = solver.schedule(s)
        half = torch.where(s > 0, sigma_s - alpha_s * start.sigma / start.alpha, 0.0) / 2
        return combine((torch.ones_like(half), x_s), (half, end.eps - start.eps))
