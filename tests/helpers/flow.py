"""The exact probability flow, and the error of a sampler against it."""

from itertools import pairwise

import numpy as np
import torch
from scipy.integrate import solve_ivp

from diffusion.samplers.base import SolverState

FROM, TO = -9.0, 6.0  # log-SNR: the last step to t = 0 is of first order in every solver, and not measured here
START = torch.linspace(-2.5, 2.5, 21, dtype=torch.float64).reshape(1, 1, 3, 7)


def flow(denoise, x, t, s):
    """The probability flow d(x / alpha) / d(sigma / alpha) = eps from t to s, by a Runge-Kutta method of order 8."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = denoise.schedule(t), denoise.schedule(s)

    def slope(log_ratio, scaled):
        ratio = torch.tensor(np.exp(log_ratio))
        alpha = 1 / (1 + ratio**2).sqrt()
        x_t = torch.tensor(scaled) * alpha
        return scaled - denoise.x_0(x_t, alpha, ratio * alpha).numpy()

    ends = [(sigma_t / alpha_t).log().item(), (sigma_s / alpha_s).log().item()]
    solved = solve_ivp(slope, ends, (x / alpha_t).flatten().numpy(), method="DOP853", rtol=1e-12, atol=1e-13)
    return torch.tensor(solved.y[:, -1]).reshape(x.shape) * alpha_s


def error(sampler, denoise, steps, exact_starts=0):
    """The largest error after `steps` steps even in log-SNR. exact_starts: a multistep method of order p needs p
    points to begin with; to see its own order, the first are taken from the exact flow."""
    grid = denoise.schedule.t_of_log_snr(torch.linspace(FROM, TO, steps + 1, dtype=torch.float64))
    solver, x = SolverState(denoise, noise=None, steps=steps, left=steps), START
    for number, (t, s) in enumerate(pairwise(grid)):
        before, x = x, sampler.step(solver, x, t, s)
        if number < exact_starts:
            x = flow(denoise, START, grid[0], s)
            solver.carry = solver.carry and solver.carry._replace(x=before)
    return (x - flow(denoise, START, grid[0], grid[-1])).abs().max().item()
