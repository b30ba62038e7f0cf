from copy import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from diffusion import clipping, parametrization, process, schedule
from diffusion.denoiser import Denoiser
from diffusion.ground.errors import UserError
from diffusion.ground.random import Streams
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM
from diffusion.samplers.dpm_solver_pp import DPMSolverPP
from diffusion.samplers.euler import Euler
from diffusion.samplers.heun import Heun
from diffusion.samplers.times import SPACINGS
from diffusion.samplers.unipc import UniPC
from diffusion.tasks.generate import generate
from tests.helpers.exact import GaussianDenoiser, MixtureDenoiser

ALL = [schedule.linear, schedule.cosine, schedule.sigmoid, schedule.quadratic]


def draw(sampler, denoise, n=64, shape=(1, 16, 16), **options):
    batches = generate(denoise, sampler, shape, torch.arange(n), seed=0, batch_size=n, **options)
    return torch.cat([states for _, states in batches], dim=1)


@pytest.mark.parametrize("make", ALL)
def test_ancestral_sampling_with_the_exact_denoiser_reproduces_a_gaussian(make):
    x_0 = draw(DDPM(), GaussianDenoiser(make(1000), mean=0.3, std=0.5), n=128).double()
    n = x_0.numel()
    assert abs(x_0.mean() - 0.3) < 4 * 0.5 / n**0.5 + 0.002
    assert abs(x_0.var() / 0.25 - 1) < 4 * (2 / n) ** 0.5 + 0.01  # the last term: 1000 steps are not infinitely many


@pytest.mark.parametrize("make", ALL)
def test_ddim_carries_a_gaussian_to_a_gaussian(make):
    """The flow of a Gaussian is linear: x_0 = mean + std x_T, where x_T is standard normal and alpha_T is about 0."""
    denoise = GaussianDenoiser(make(1000), mean=0.3, std=0.5)
    x_T = Streams(0, "sample", torch.arange(2), (1, 4, 4)).normal()
    alpha_T, sigma_T = denoise.schedule(1000)
    scale = (alpha_T**2 * 0.25 + sigma_T**2).sqrt()
    expected = 0.3 + 0.5 * (x_T - alpha_T * 0.3) / scale
    error = (draw(DDIM(steps=1000), denoise, n=2, shape=(1, 4, 4))[-1] - expected).abs().max()
    assert error < 0.01
    assert (draw(DDIM(steps=100), denoise, n=2, shape=(1, 4, 4))[-1] - expected).abs().max() > error


def test_ddim_with_eta_1_and_all_steps_is_ancestral_sampling():
    denoise = GaussianDenoiser(schedule.cosine(1000))
    torch.testing.assert_close(draw(DDIM(eta=1.0), denoise), draw(DDPM(), denoise), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", [DDPM, DDIM])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 16, 17, 18, 19, 20])
def test_every_step_count_walks_down_to_0(sampler, steps):
    denoise = GaussianDenoiser(schedule.linear(20))
    noise = Streams(0, "sample", torch.arange(2), (1, 4, 4)).normal
    path = list(sampler(steps=steps).trajectory(denoise, noise(), noise))
    times = [state.t for state in path]
    assert len(path) == steps + 1
    assert times[0] == 20
    assert times[-1] == 0
    assert all(before > after for before, after in pairwise(times))
    assert [state.nfe for state in path] == list(range(steps + 1))
    assert torch.isfinite(path[-1].x).all()


@pytest.mark.parametrize("steps", [0, 21, -1])
def test_impossible_step_counts_are_refused(steps):
    expected = "1 to 20" if steps > 0 else "a whole number, 1 or more, or null"
    with pytest.raises(UserError, match=rf"sampler.steps={steps}: expected {expected}"):
        draw(DDIM(steps=steps), GaussianDenoiser(schedule.linear(20)))


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


@pytest.mark.parametrize(
    "sampler", [DDPM(steps=20), DDIM(steps=20), DDIM(steps=20, eta=0.7), DDPM(steps=20, noise="brownian")]
)
def test_an_image_does_not_depend_on_its_batch(sampler):
    denoise, index = GaussianDenoiser(schedule.linear()), torch.arange(7)
    batches = [
        torch.cat([states[-1] for _, states in generate(denoise, sampler, (1, 4, 4), index, 5, batch_size=size)])
        for size in (1, 3, 7)
    ]
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])
    _, alone = next(generate(denoise, sampler, (1, 4, 4), torch.tensor([6]), 5))
    assert torch.equal(alone[-1][0], batches[0][6])


def test_kept_states_end_with_the_result():
    denoise = GaussianDenoiser(schedule.linear())
    everything = draw(DDPM(steps=10), denoise, n=2, keep=range(11))
    assert len(everything) == 11
    assert torch.equal(everything[0], Streams(0, "sample", torch.arange(2), (1, 16, 16)).normal())
    assert torch.equal(draw(DDPM(steps=10), denoise, n=2, keep=[8, 9, 10]), everything[-3:])
    assert torch.equal(draw(DDPM(steps=10), denoise, n=2, keep=[2, 6, 10]), everything[[2, 6, 10]])


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


def test_euler_without_churn_is_ddim():
    denoise = MixtureDenoiser(schedule.cosine(1000))
    ours, ddim = draw(Euler(steps=20, times="trailing"), denoise), draw(DDIM(steps=20), denoise)
    torch.testing.assert_close(ours, ddim)


def test_a_list_of_times_is_used_unchanged():
    denoise = GaussianDenoiser(schedule.linear(1000))
    listed = draw(DDIM(times=[1000, 500, 0]), denoise)
    assert torch.equal(listed, draw(DDIM(steps=2), denoise))
    for times in ([1000, 500], [500, 1000, 0], [1001, 0], [0], []):
        with pytest.raises(UserError, match="expected times that decrease from at most 1000 to 0"):
            draw(DDIM(times=times), denoise)
    with pytest.raises(UserError, match="the list of times has 2 steps"):
        draw(DDIM(times=[1000, 500, 0], steps=3), denoise)
    with pytest.raises(UserError, match=r"sampler.times=trailling: expected trailing, leading"):
        draw(DDIM(times="trailling", steps=3), denoise)


class LearnedVariance(nn.Module):
    def forward(self, x, t, y):
        return torch.cat([0.1 * x, torch.full_like(x, 0.5)], dim=1)


def test_learned_variance_is_the_mix_the_network_predicts():
    """Nichol & Dhariwal 2021, Eq. 15: an output of 0.5 in -1..1 stands for a mix of 0.75."""
    denoise = clipping.Clip(
        Denoiser(LearnedVariance(), schedule.linear(1000), parametrization.Eps()), clipping.Static()
    )
    learned = draw(DDPM(steps=20, variance="learned"), denoise, n=2)
    torch.testing.assert_close(learned, draw(DDPM(steps=20, variance=0.75), denoise, n=2))
    with pytest.raises(UserError, match="this network predicts no variance"):
        draw(DDPM(steps=20, variance="learned"), GaussianDenoiser(schedule.linear(1000)))


def test_interpolated_variance_is_geometric():
    made, x = schedule.linear(1000), torch.zeros(3, 1, 1, 1, dtype=torch.float64)
    s, t = torch.tensor([0.0, 100, 400]), torch.tensor([1.0, 200, 401])
    small, half, large = (process.reverse_variance(made, s, t, mix, x).flatten() for mix in (0, 0.5, 1))
    _, posterior = process.q_posterior(made, x, x, s, t)
    torch.testing.assert_close(small, posterior.flatten())
    torch.testing.assert_close(large[1:], made.beta(s, t)[1:])
    torch.testing.assert_close(half, (small * large).sqrt())
    assert small[0] == half[0] == large[0] == 0


@pytest.mark.parametrize("sampler", [DPMSolverPP, UniPC])
def test_orders_that_do_not_exist_are_refused(sampler):
    with pytest.raises(UserError, match=r"sampler.order=4: expected 1, 2 or 3"):
        sampler(order=4)
