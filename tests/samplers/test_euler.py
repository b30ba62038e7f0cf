"""Euler steps."""

import torch

from diffusion import schedule
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.euler import Euler
from tests.helpers.exact import MixtureDenoiser
from tests.helpers.samplers import draw


def test_euler_without_churn_is_ddim():
    denoise = MixtureDenoiser(schedule.cosine(1000))
    ours, ddim = draw(Euler(steps=20, times="trailing"), denoise), draw(DDIM(steps=20), denoise)
    torch.testing.assert_close(ours, ddim)
