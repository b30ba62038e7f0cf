"""Image to image: where it begins, on data whose denoiser is exact."""

import numpy as np
import pytest
import torch

from diffusion import process, schedule
from diffusion.ground.errors import UserError
from diffusion.ground.random import Streams
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM
from diffusion.spaces.pixels import Pixels
from diffusion.tasks.generate import generate
from diffusion.tasks.img2img import Img2Img
from tests.helpers.exact import GaussianDenoiser
from tests.helpers.tasks import SHAPE, SPACE, draw


@pytest.mark.parametrize("sampler", [DDPM(steps=200), DDIM(steps=200, eta=1.0)])
def test_img2img_draws_from_the_posterior_at_t(picture, sampler):
    denoise, t = GaussianDenoiser(schedule.cosine(1000), mean=0.3, std=0.5), 400
    task = Img2Img(picture(np.full((16, 16), 255)), t, Pixels((1, 16, 16)))
    x_0 = draw(task, sampler, denoise, n=32, shape=(1, 16, 16)).double()
    alpha, sigma = denoise.schedule(t)
    gain = alpha * 0.25 / (alpha**2 * 0.25 + sigma**2)
    left = 0.25 * sigma**2 / (alpha**2 * 0.25 + sigma**2)  # variance of x_0 given x_t
    assert x_0.mean() == pytest.approx((0.3 + gain * alpha * 0.7).item(), abs=0.02)
    assert x_0.var() == pytest.approx((left + (gain * sigma) ** 2).item(), rel=0.06)


@pytest.mark.parametrize("t", [0, -1, 1001])
def test_img2img_from_an_impossible_time_is_refused(picture, t):
    denoise = GaussianDenoiser(schedule.cosine(1000))
    expected = "a time in steps, above 0 and at most T=1000" if t > 0 else "a number above 0, or null"
    with pytest.raises(UserError, match=f"task.t={t}: expected {expected}"):
        draw(Img2Img(picture(np.zeros((4, 4))), t, SPACE), DDIM(steps=5), denoise, n=1)


def test_img2img_from_t_is_what_generation_does_below_t(picture):
    """With the noise known, the state at t is q_sample, and the times below t are the sampler's own."""
    denoise, task = GaussianDenoiser(schedule.cosine(1000)), Img2Img(picture(np.full((4, 4), 255)), 450, SPACE)
    sampler = DDIM(steps=10)
    assert task.times(sampler, denoise.schedule).tolist() == [450, 400, 300, 200, 100, 0]
    [(_, states)] = generate(
        denoise,
        sampler,
        SHAPE,
        torch.arange(2),
        seed=0,
        task=task,
        keep=range(6),
    )
    eps = Streams(0, "sample", torch.arange(2), SHAPE).normal()
    torch.testing.assert_close(states[0], process.q_sample(denoise.schedule, torch.ones(2, *SHAPE), 450, eps))


def test_img2img_begins_halfway_by_default(picture):
    assert Img2Img(picture(np.zeros((4, 4))), None, SPACE).times(DDIM(steps=4), schedule.cosine(20))[0] == 10
