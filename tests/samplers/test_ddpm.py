"""Ancestral sampling: its distribution, and the variance of its steps. Algorithm 2 itself is in test_algorithm_2.py."""

import pytest
import torch
from torch import nn

from diffusion import clipping, parametrization, process, schedule
from diffusion.denoiser import Denoiser
from diffusion.ground.errors import UserError
from diffusion.samplers.ddpm import DDPM
from tests.helpers.exact import GaussianDenoiser
from tests.helpers.samplers import draw

ALL = [schedule.linear, schedule.cosine, schedule.sigmoid, schedule.quadratic]


@pytest.mark.parametrize("make", ALL)
def test_ancestral_sampling_with_the_exact_denoiser_reproduces_a_gaussian(make):
    x_0 = draw(DDPM(), GaussianDenoiser(make(1000), mean=0.3, std=0.5), n=128).double()
    n = x_0.numel()
    assert abs(x_0.mean() - 0.3) < 4 * 0.5 / n**0.5 + 0.002
    assert abs(x_0.var() / 0.25 - 1) < 4 * (2 / n) ** 0.5 + 0.01  # the last term: 1000 steps are not infinitely many


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
