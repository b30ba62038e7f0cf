"""Inpainting: what is known stays, and the unknown follows it, on data whose denoiser is exact."""

import numpy as np
import pytest
import torch

from diffusion import schedule
from diffusion.denoiser import Prediction
from diffusion.ground.errors import UserError
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM
from diffusion.samplers.dpm_solver_pp import DPMSolverPP
from diffusion.samplers.heun import Heun
from diffusion.samplers.unipc import UniPC
from diffusion.spaces.pixels import Pixels
from diffusion.tasks.inpaint import Inpaint
from tests.helpers.exact import MixtureDenoiser
from tests.helpers.tasks import SPACE, draw


class CorrelatedDenoiser:
    """E[x_0 | x_t] where all pixels are standard normal with the same correlation to each other."""

    def __init__(self, schedule, correlation, pixels):
        self.schedule = schedule
        self.covariance = torch.full((pixels, pixels), correlation).fill_diagonal_(1).double()

    def __call__(self, x_t, t, condition=None):
        t = torch.as_tensor(t, dtype=torch.float64)
        alpha, sigma = self.schedule(t)
        gain = (
            alpha
            * self.covariance
            @ torch.linalg.inv(
                alpha**2 * self.covariance + sigma**2 * torch.eye(len(self.covariance), dtype=torch.float64)
            )
        )
        x_0 = (x_t.flatten(1).double() @ gain).reshape(x_t.shape).to(x_t)
        return Prediction(x_0, x_t, t, alpha, sigma)


SOLVERS = [DDPM(steps=20), DDIM(steps=20), Heun(steps=20), DPMSolverPP(steps=20), UniPC(steps=20)]


@pytest.mark.parametrize("sampler", SOLVERS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("resamples", [1, 3])
def test_inpainting_keeps_what_is_known(picture, sampler, resamples):
    values = np.arange(16).reshape(4, 4) * 16
    white_below = np.repeat([[0], [0], [255], [255]], 4, axis=1)
    task = Inpaint(picture(values), picture(white_below, "mask.png"), resamples, 5, SPACE)
    x_0 = draw(task, sampler, MixtureDenoiser(schedule.cosine(1000)), n=3)
    known = torch.tensor(values[:2], dtype=torch.float32) / 127.5 - 1
    torch.testing.assert_close(x_0[:, 0, :2], known.expand(3, 2, 4), rtol=0, atol=1e-5)
    assert torch.isfinite(x_0).all()
    assert x_0[:, 0, 2:].var() > 0.05


def test_resampling_lets_the_unknown_follow_the_known(picture):
    """Of two pixels with correlation 0.9 one is known to be 1: the other has mean 0.9 and variance 0.19. Replacing the
    known pixel alone does not get there, resampling does (Lugmayr et al. 2022, section 4.2)."""
    shape, denoise = (1, 2, 2), CorrelatedDenoiser(schedule.cosine(1000), 0.9, pixels=4)
    image, mask = picture(np.full((2, 2), 255)), picture([[0, 255], [255, 255]], "mask.png")
    bias = {}
    for resamples in (1, 10):
        x_0 = draw(Inpaint(image, mask, resamples, 10, Pixels(shape)), DDPM(steps=100), denoise, n=400, shape=shape)
        bias[resamples] = abs(x_0[:, 0, 1, 1].mean() - 0.9)
        variance = x_0[:, 0, 1, 1].var()
    assert bias[10] < 0.1
    assert bias[1] > 2 * bias[10]
    assert variance == pytest.approx(0.19, rel=0.35)


@pytest.mark.parametrize(("grey", "message"), [(0, "all black, nothing is drawn"), (255, "all white, nothing is kept")])
def test_a_mask_without_an_edge_is_refused(picture, grey, message):
    with pytest.raises(UserError, match=message):
        Inpaint(picture(np.zeros((4, 4))), picture(np.full((4, 4), grey), "mask.png"), 1, 1, SPACE)


@pytest.mark.parametrize(("resamples", "jump", "key"), [(0, 1, "resamples"), (1, 0, "jump"), (1.5, 1, "resamples")])
def test_stretches_are_walked_at_least_once(picture, resamples, jump, key):
    image, mask = picture(np.zeros((4, 4))), picture(np.eye(4) * 255, "mask.png")
    with pytest.raises(UserError, match=rf"task\.{key}=.*: expected a whole number, 1 or more"):
        Inpaint(image, mask, resamples, jump, SPACE)
