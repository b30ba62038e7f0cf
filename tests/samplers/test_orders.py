"""Orders of convergence, on data whose denoiser is exact and whose flow is integrated to 1e-12."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from diffusion import schedule
from diffusion.samplers import dpm_solver_pp
from diffusion.samplers.base import SolverState
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.dpm_solver_pp import DPMSolverPP
from diffusion.samplers.euler import Euler
from diffusion.samplers.heun import Heun
from diffusion.samplers.unipc import UniPC
from tests.helpers.exact import GaussianDenoiser, MixtureDenoiser

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


SOLVERS = {
    "ddim": (DDIM(), 1, 0),
    "euler": (Euler(), 1, 0),
    "heun": (Heun(), 2, 0),
    "dpm_solver_pp 1": (DPMSolverPP(order=1), 1, 0),
    "dpm_solver_pp 2": (DPMSolverPP(order=2), 2, 0),
    "dpm_solver_pp 3": (DPMSolverPP(order=3), 3, 2),
    "unipc 1": (UniPC(order=1), 2, 0),  # the corrector adds one order to the predictor's
    "unipc 2": (UniPC(order=2), 3, 2),
    "unipc 3": (UniPC(order=3), 4, 3),
}


@pytest.mark.parametrize("make", [schedule.VP, schedule.ContinuousCosine])
@pytest.mark.parametrize("denoiser", [MixtureDenoiser, GaussianDenoiser])
@pytest.mark.parametrize("name", SOLVERS)
def test_doubling_the_steps_divides_the_error_by_2_to_the_order(name, denoiser, make):
    sampler, order, exact_starts = SOLVERS[name]
    if denoiser is GaussianDenoiser and order > 2:
        pytest.skip("on a Gaussian the error meets the reference's 1e-12 before it shows its order")
    denoise = denoiser(make(1000))
    coarse, fine = (error(sampler, denoise, steps, exact_starts) for steps in (160, 320))
    assert coarse / fine == pytest.approx(2**order, rel=0.15)


def test_third_order_needs_the_whole_last_weight(monkeypatch):
    """With the halved weight of the authors' code the method is of second order, and several times less accurate."""
    denoise, sampler, right = MixtureDenoiser(schedule.VP()), DPMSolverPP(order=3), dpm_solver_pp.weights_of
    ours = error(sampler, denoise, 160, 2)

    def published(h, order):
        weights = right(h, order)
        return weights if order < 3 else [*weights[:2], weights[2] / 2]

    monkeypatch.setattr(dpm_solver_pp, "weights_of", published)
    coarse, fine = (error(sampler, denoise, steps, 2) for steps in (160, 320))
    assert coarse / fine == pytest.approx(4, rel=0.15)
    assert coarse > 5 * ours


@pytest.mark.parametrize(("name", "steps"), [("ddim", 40), ("heun", 40), ("dpm_solver_pp 2", 40), ("unipc 2", 40)])
def test_tables_show_the_order_down_to_their_kinks(name, steps):
    """beta is constant within a step of a table, so its log-SNR has kinks 1/T apart. Up to about T / 10 steps the
    solvers do not notice; what is asserted is the order there within 40 %, which is what is seen."""
    sampler, order, exact_starts = SOLVERS[name]
    denoise = MixtureDenoiser(schedule.linear(1000))
    coarse, fine = (error(sampler, denoise, n, exact_starts) for n in (steps, 2 * steps))
    assert coarse / fine == pytest.approx(2**order, rel=0.4)
