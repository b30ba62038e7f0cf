"""DPM-Solver++; its orders of convergence are in test_orders.py."""

import pytest

from diffusion import schedule
from diffusion.samplers import dpm_solver_pp
from diffusion.samplers.dpm_solver_pp import DPMSolverPP
from tests.helpers.exact import MixtureDenoiser
from tests.helpers.flow import error


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
