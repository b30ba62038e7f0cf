from itertools import pairwise

import pytest
import torch

from diffusion import schedule
from diffusion.errors import UserError
from diffusion.random import Streams
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM
from diffusion.samplers.generate import generate, kept_steps
from tests.exact import GaussianDenoiser

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
    with pytest.raises(UserError, match=rf"sampler.steps={steps}: expected 1 to 20"):
        draw(DDIM(steps=steps), GaussianDenoiser(schedule.linear(20)))


@pytest.mark.parametrize("sampler", [DDPM(steps=20), DDIM(steps=20), DDIM(steps=20, eta=0.7)])
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
    everything = draw(DDPM(steps=10), denoise, n=2, keep="all")
    assert len(everything) == 11
    assert torch.equal(everything[0], Streams(0, "sample", torch.arange(2), (1, 16, 16)).normal())
    assert torch.equal(draw(DDPM(steps=10), denoise, n=2, keep=3), everything[-3:])
    assert torch.equal(draw(DDPM(steps=10), denoise, n=2, keep="every:4"), everything[[2, 6, 10]])


@pytest.mark.parametrize("keep", [0, -1, 12, "some", "every:0", "every:x", 1.5])
def test_what_cannot_be_kept_is_refused(keep):
    with pytest.raises(UserError, match=rf"keep={keep}: expected 1 to 11"):
        kept_steps(keep, 10)


def test_options_are_checked():
    with pytest.raises(UserError, match=r"sampler.eta=2"):
        DDIM(eta=2)
    with pytest.raises(UserError, match=r"sampler.variance=large"):
        DDPM(variance="large")
    with pytest.raises(UserError, match="batch_size=0"):
        next(generate(GaussianDenoiser(schedule.linear()), DDPM(), (1, 4, 4), torch.arange(1), 0, batch_size=0))
