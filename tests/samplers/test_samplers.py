"""What holds for several samplers: noise, options, step counts, and the distribution of what they draw."""

from copy import copy

import pytest
import torch

from diffusion import schedule
from diffusion.ground.errors import UserError
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM
from diffusion.samplers.dpm_solver_pp import DPMSolverPP
from diffusion.samplers.euler import Euler
from diffusion.samplers.heun import Heun
from diffusion.samplers.times import SPACINGS
from diffusion.samplers.unipc import UniPC
from diffusion.tasks.generate import generate
from tests.helpers.exact import GaussianDenoiser, MixtureDenoiser
from tests.helpers.samplers import draw


def _stochastic(name, steps):
    yield DDPM(steps=steps, noise=name)
    yield DDIM(steps=steps, eta=1.0, noise=name)
    yield DPMSolverPP(steps=steps, stochastic=True, times="trailing", noise=name)


@pytest.mark.parametrize("number", range(3))
def test_brownian_noise_leads_to_the_same_image_at_any_number_of_steps(number):
    denoise = GaussianDenoiser(schedule.cosine(1000), std=0.5)
    few, many, most = (draw([*_stochastic("brownian", steps)][number], denoise, n=8) for steps in (25, 100, 400))
    assert (many - most).std() < (few - most).std() / 2 < 0.15 / 2  # converges with the number of steps
    independent = [draw([*_stochastic("independent", steps)][number], denoise, n=8) for steps in (100, 400)]
    assert (independent[0] - independent[1]).std() > 0.3


@pytest.mark.parametrize("sampler", [*_stochastic("brownian", 200)], ids=lambda each: type(each).__name__)
def test_brownian_noise_reproduces_a_gaussian(sampler):
    x_0 = draw(sampler, GaussianDenoiser(schedule.cosine(1000), mean=0.3, std=0.5), n=128).double()
    n = x_0.numel()
    assert abs(x_0.mean() - 0.3) < 4 * 0.5 / n**0.5 + 0.002
    assert abs(x_0.var() / 0.25 - 1) < 4 * (2 / n) ** 0.5 + 0.02


def test_options_are_checked():
    with pytest.raises(UserError, match=r"sampler.eta=2"):
        DDIM(eta=2)
    with pytest.raises(UserError, match=r"sampler.variance='large'"):
        DDPM(variance="large")
    with pytest.raises(UserError, match="batch_size=0"):
        next(generate(GaussianDenoiser(schedule.linear()), DDPM(), (1, 4, 4), torch.arange(1), 0, batch_size=0))


FEW_STEP = [
    DDIM(), Euler(), Heun(), DPMSolverPP(order=1), DPMSolverPP(order=2), DPMSolverPP(order=3), UniPC(order=1),
    UniPC(order=2), UniPC(order=3),
]  # fmt: skip
STOCHASTIC = [
    DDPM(steps=1000), DDPM(steps=1000, variance="fixed_large"), DDPM(steps=1000, variance=0.5),
    DDIM(steps=1000, eta=1.0), DDIM(steps=500, eta=0.5), Euler(steps=400, times="karras", churn=40.0),
    Heun(steps=200, times="karras", churn=40.0), DPMSolverPP(steps=400, times="log_snr", order=1, stochastic=True),
    DPMSolverPP(steps=100, times="log_snr", order=2, stochastic=True),
    DPMSolverPP(steps=100, times="log_snr", order=3, stochastic=True),
]  # fmt: skip


def name(sampler):
    return " ".join([type(sampler).__name__, *(f"{key}={value}" for key, value in vars(sampler).items() if value)])


@pytest.mark.parametrize("sampler", STOCHASTIC, ids=name)
def test_stochastic_samplers_have_the_right_mean_and_variance_on_a_mixture(sampler):
    """Of the mixture, not of a Gaussian fitted to it: the share of the left component is compared as well."""
    denoise = MixtureDenoiser(schedule.VP(), means=(-0.6, 0.5), weights=(0.3, 0.7), std=0.2)
    x_0 = draw(sampler, denoise).double()
    n = x_0.numel()
    mean = 0.3 * -0.6 + 0.7 * 0.5
    variance = 0.2**2 + 0.3 * (-0.6 - mean) ** 2 + 0.7 * (0.5 - mean) ** 2
    assert x_0.mean() == pytest.approx(mean, abs=4 * variance**0.5 / n**0.5 + 0.005)
    assert x_0.var() == pytest.approx(variance, rel=4 * (2 / n) ** 0.5 + 0.02)
    assert (x_0 < -0.05).double().mean() == pytest.approx(0.3, abs=4 * 0.46 / n**0.5 + 0.01)


@pytest.mark.parametrize("sampler", FEW_STEP, ids=name)
@pytest.mark.parametrize("times", SPACINGS)
def test_every_step_count_and_spacing_is_finite_and_ends_at_0(sampler, times):
    denoise = MixtureDenoiser(schedule.cosine(20))
    for steps in range(1, 21):
        chosen = copy(sampler)
        chosen.steps, chosen.spacing = steps, times
        grid = chosen.times(denoise.schedule)
        assert len(grid) == steps + 1
        assert (grid.diff() < 0).all()
        assert grid[-1] == 0
        assert torch.isfinite(draw(chosen, denoise, n=2, shape=(1, 4, 4))).all()


@pytest.mark.parametrize("sampler", FEW_STEP, ids=name)
@pytest.mark.parametrize("make", [schedule.linear, schedule.ContinuousCosine, schedule.laplace])
@pytest.mark.parametrize("times", ["trailing", "angle", "log_snr", "karras"])
def test_with_zero_terminal_snr_every_solver_walks_from_pure_noise(sampler, make, times):
    denoise = MixtureDenoiser(make(1000).with_zero_terminal_snr())
    chosen = copy(sampler)
    chosen.steps, chosen.spacing = 50, times
    x_0 = draw(chosen, denoise, n=16, shape=(1, 8, 8))
    assert torch.isfinite(x_0).all()
    assert x_0.mean() == pytest.approx(0.17, abs=0.1)


@pytest.mark.parametrize("sampler", [Euler(), Heun(), DPMSolverPP(), UniPC()], ids=name)
def test_continuous_solvers_take_more_steps_than_the_schedule_has(sampler):
    sampler.steps = 75
    denoise = GaussianDenoiser(schedule.linear(50))
    assert torch.isfinite(draw(sampler, denoise, n=2, shape=(1, 4, 4))).all()
    sampler.spacing = "leading"
    with pytest.raises(UserError, match=r"sampler.steps=75: expected 1 to 50"):
        draw(sampler, denoise)


@pytest.mark.parametrize("sampler", [DPMSolverPP, UniPC])
def test_orders_that_do_not_exist_are_refused(sampler):
    with pytest.raises(UserError, match=r"sampler.order=4: expected 1, 2 or 3"):
        sampler(order=4)
