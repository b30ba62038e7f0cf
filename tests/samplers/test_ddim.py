"""DDIM on Gaussian data, and its inversion."""

import pytest
import torch

from diffusion import schedule
from diffusion.ground.random import Streams
from diffusion.samplers.ddim import DDIM, invert
from diffusion.samplers.ddpm import DDPM
from tests.helpers.exact import GaussianDenoiser, MixtureDenoiser
from tests.helpers.samplers import draw

ALL = [schedule.linear, schedule.cosine, schedule.sigmoid, schedule.quadratic]


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


def test_inversion_leads_back_to_the_image():
    denoise, x_0 = MixtureDenoiser(schedule.cosine(1000)), torch.linspace(-0.9, 0.9, 16).reshape(1, 1, 4, 4).double()
    sampler, errors = DDIM(steps=50), []
    for iterations in (1, 3, 10):
        x_T = invert(denoise, x_0, sampler.times(denoise.schedule), iterations=iterations)
        *_, last = sampler.trajectory(denoise, x_T, noise=None)
        errors.append((last.x - x_0).abs().max().item())
    assert errors[2] < 1e-5
    assert errors[1] < 0.25 * errors[0]


def test_inversion_of_a_gaussian_is_its_quantile():
    """The flow of a Gaussian is linear: the noise of an image is its distance from the mean in standard deviations."""
    denoise = GaussianDenoiser(schedule.VP(), mean=0.3, std=0.5)
    x_0 = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4).double()
    x_T = invert(denoise, x_0, DDIM(steps=1000).times(denoise.schedule))
    torch.testing.assert_close(x_T, (x_0 - 0.3) / 0.5, rtol=0.01, atol=0.02)
