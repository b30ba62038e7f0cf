"""UniPC: a predictor and a corrector of any order from one evaluation a step (Zhao et al. 2023, arXiv:2302.04867)."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from diffusion.config.value_types import Count, Times, checked
from diffusion.denoiser import Prediction
from diffusion.samplers.base import Sampler, SolverState, combine, half_log_snr


class _Stride(NamedTuple):
    """The last step, for the corrector: its corrected start, the predictions then, newest first, and its order."""

    x: Tensor
    past: list[Prediction]
    order: int


@checked
class UniPC(Sampler):
    """The paper's variant B(h) = exp(h) - 1, on x_0. Each evaluation first corrects the current point (UniC), then
    predicts the next (UniP). order: 1 to 3; lower at both ends of the trajectory.
    """

    draws_noise = False

    def __init__(self, steps: Count | None = None, times: Times = "angle", order: Literal[1, 2, 3] = 3):
        super().__init__(steps, times)
        self.order = order

    def step(self, solver: SolverState, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        here = solver.predict(x_t, t)
        if solver.carry is not None:
            x_t = _advance(solver, solver.carry, t, here)
        past = [prediction for prediction in reversed(solver.history) if (prediction.alpha > 0).all()] or [here]
        order = 1 if (s == 0).any() else min(self.order, solver.left, len(past))
        solver.carry = _Stride(x_t, past[:order], order)
        return _advance(solver, solver.carry, s)


def _advance(solver: SolverState, stride: _Stride, s: Tensor, end: Prediction | None = None) -> Tensor:
    """x_s by the predictor; or, given the prediction at its `end`, by the corrector (Eqs. 3 and 9)."""
    newest, *older = stride.past
    alpha_s, sigma_s = solver.schedule(s)
    lambda_t = half_log_snr(newest.alpha, newest.sigma)
    h = half_log_snr(alpha_s, sigma_s) - lambda_t
    ratios = [(half_log_snr(point.alpha, point.sigma) - lambda_t) / h for point in older]
    points = [*older]
    if end is not None:
        ratios.append(torch.ones_like(h))
        points.append(end)
    growth = -torch.expm1(-h)
    bends = [
        (alpha_s * growth * rho / ratio, point.x_0 - newest.x_0)
        for rho, ratio, point in zip(_rhos(ratios, h), ratios, points, strict=True)
    ]
    return combine((sigma_s / newest.sigma, stride.x), (alpha_s * growth, newest.x_0), *bends)


def _rhos(ratios: list[Tensor], h: Tensor) -> list[Tensor]:
    """The rho that make the method exact for polynomials: sum_m rho_m r_m^(k-1) = k! phi_(k+1) / B, k = 1, 2, ...
    (Eq. 5)."""
    if len(ratios) < 2:  # the authors' choice, of the same order for B(h) = exp(h) - 1
        return [torch.full_like(h, 0.5)] * len(ratios)
    rows, right = [], []
    phi = torch.expm1(-h)
    for k in range(1, len(ratios) + 1):
        phi = phi / -h - 1 / math.factorial(k)
        rows.append(torch.stack([ratio ** (k - 1) for ratio in ratios], dim=-1))
        right.append(phi * math.factorial(k) / torch.expm1(-h))
    rhos = torch.linalg.solve(torch.stack(rows, dim=-2), torch.stack(right, dim=-1).unsqueeze(-1)).squeeze(-1)
    return list(rhos.unbind(-1))
