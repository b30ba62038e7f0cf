"""The samplers as they are shipped, at few steps: what their images lose by the steps, on data whose denoiser is exact.

In one dimension the probability flow is the monotone map from noise to data, so that the difference to the exact flow
over the quantiles of the noise is also the Wasserstein distance of the two distributions.
"""

import pytest
import torch

from diffusion import schedule
from diffusion.runs import build
from diffusion.runs.groups import choice
from diffusion.samplers.dpm_solver_pp import DPMSolverPP
from tests.helpers.exact import MixtureDenoiser

QUANTILES = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
START = torch.special.ndtri(QUANTILES).reshape(1, 1, 1, -1)
DATA = {"overlapping": {}, "apart": {"means": (-0.9, 0.9), "weights": (0.7, 0.3), "std": 0.1}}


def drawn(sampler, denoise):
    *_, last = sampler.trajectory(denoise, START, noise=None)
    return last.x


def errors(name, denoise, counts):
    """The root mean square error of each number of steps."""
    exact = drawn(DPMSolverPP(steps=1000, times="log_snr"), denoise)
    samplers = [build.instantiate({**choice("sampler", name), "steps": count}) for count in counts]
    return [(drawn(sampler, denoise) - exact).square().mean().sqrt().item() for sampler in samplers]


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("make", [schedule.linear, schedule.cosine])
@pytest.mark.parametrize(("name", "counts"), [("dpm_solver_pp", (5, 10, 20)), ("unipc", (5, 10, 20)), ("heun", (20,))])
def test_no_fast_solver_is_worse_than_ddim(name, counts, make, data):
    denoise = MixtureDenoiser(make(1000), **DATA[data])
    ours, ddim = errors(name, denoise, counts), errors("ddim", denoise, counts)
    assert all(one <= 1.05 * other for one, other in zip(ours, ddim, strict=True)), (ours, ddim)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("make", [schedule.linear, schedule.cosine])
def test_heun_is_no_noise_from_10_evaluations(make, data):
    """Over the whole of a cosine schedule its first steps are so wide that these errors are above 1 and 5."""
    ten, six = errors("heun", MixtureDenoiser(make(1000), **DATA[data]), (10, 6))
    assert ten < 0.1
    assert six < 0.4
