"""DPM-Solver++, multistep: orders 1 to 3 of the flow or of the SDE (Lu et al. 2022, arXiv:2211.01095)."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from diffusion.config.value_types import Count, Times, checked
from diffusion.samplers.base import Noise, Sampler, SolverState, combine, half_log_snr

_FEW = 15  # with fewer steps the last but one is of order 2 at most, as the authors recommend


@checked
class DPMSolverPP(Sampler):
    """Integrates x_0 as a polynomial in lambda = log(alpha / sigma) through the last `order` predictions, exactly
    weighted by the exponential of the linear part. One evaluation a step.

    order: 1, 2 or 3; lower at the start and, since lambda is infinite at 0, in the last step. stochastic: the SDE.
    noise: of the SDE, as in `DDPM`.
    """

    def __init__(
        self,
        steps: Count | None = None,
        times: Times = "angle",
        order: Literal[1, 2, 3] = 2,
        stochastic: bool = False,
        noise: Noise = "independent",
    ):
        super().__init__(steps, times)
        self.order = order
        self.noise: Noise = noise
        self.stochastic = self.draws_noise = stochastic

    def unused(self) -> dict[str, str]:
        return {} if self.stochastic else {"sampler.noise": "with sampler.stochastic=false no noise is added"}

    def step(self, solver: SolverState, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        solver.predict(x_t, t)
        past = [prediction for prediction in reversed(solver.history) if (prediction.alpha > 0).all()]
        order = 1 if (s == 0).any() else min(self.order, max(1, len(past)))
        if solver.steps < _FEW:
            order = min(order, solver.left)
        alpha_s, sigma_s = solver.schedule(s)
        alpha_t, sigma_t = solver.history[-1].alpha, solver.history[-1].sigma
        h = half_log_snr(alpha_s, sigma_s) - half_log_snr(alpha_t, sigma_t)
        differences = self._differences(solver, h, order)
        if not self.stochastic:
            weights = weights_of(h, order)
            return combine((sigma_s / sigma_t, x_t), *_scaled(alpha_s, weights, differences))
        weights = weights_of(2 * h, order)  # the SDE decays twice as fast
        noise = (sigma_s * (-torch.expm1(-2 * h)).sqrt(), solver.reverse_noise(t, s))
        return combine((sigma_s / sigma_t * (-h).exp(), x_t), *_scaled(alpha_s, weights, differences), noise)

    def _differences(self, solver: SolverState, h: Tensor, order: int) -> list[Tensor]:
        """x_0 and its divided differences in units of h: as many as the order."""
        points = list(reversed(solver.history))[:order]
        x_0 = [prediction.x_0 for prediction in points]
        if order == 1:
            return x_0
        at = [half_log_snr(prediction.alpha, prediction.sigma) for prediction in points]
        r = [(newer - older) / h for newer, older in pairwise(at)]
        slopes = [combine((1 / ratio, newer - older)) for ratio, (newer, older) in zip(r, pairwise(x_0), strict=True)]
        if order == 2:
            return [x_0[0], slopes[0]]
        bend = slopes[0] - slopes[1]
        both = r[0] + r[1]
        return [x_0[0], slopes[0] + combine((r[0] / both, bend)), combine((1 / both, bend))]


def weights_of(h: Tensor, order: int) -> list[Tensor]:
    """Of x_0 and its differences: the integrals of exp(-(h - tau)) (tau / h)^k over a step of length h.

    Order 2 uses the authors' midpoint rule for the second. Order 3 uses the exact integrals: the authors' code halves
    the last, which reduces it to second order (tests/samplers/test_orders.py measures both).
    """
    first = -torch.expm1(-h)
    if order < 3:
        return [first, first / 2][:order]
    return [first, 1 - first / h, 1 - 2 * (h - first) / h**2]


def _scaled(alpha: Tensor, weights: list[Tensor], differences: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(alpha * weight, difference) for weight, difference in zip(weights, differences, strict=True)]
