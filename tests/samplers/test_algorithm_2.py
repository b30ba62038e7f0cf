"""Algorithm 2 of Ho et al. 2020, and what the tutorials get wrong about it."""

import numpy as np
import pytest
import torch
from torch import nn

from diffusion import clipping, parametrization, process, schedule
from diffusion.denoiser import Denoiser
from diffusion.ground.random import Streams
from diffusion.samplers.base import SolverState
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM

ALL = [schedule.linear, schedule.cosine, schedule.sigmoid, schedule.quadratic]


class Known(nn.Module):
    """eps_theta(x, t) = 0.3 x + sin(t): what a network would be called with is t - 1."""

    def forward(self, x, t, y):
        return 0.3 * x + torch.sin(t.double() + 1).reshape(-1, 1, 1, 1)


def algorithm_2(x, noise, T, clip, variance="fixed_small"):
    """The paper's sampling loop in numpy, with its own tables; index k - 1 of a table is step k."""
    betas = np.linspace(1e-4, 0.02, T)
    alpha_bars = np.cumprod(1 - betas)
    for t in range(T, 0, -1):
        beta, alpha_bar, before = betas[t - 1], alpha_bars[t - 1], alpha_bars[t - 2] if t > 1 else 1.0
        eps = 0.3 * x + np.sin(t)
        if clip is None:
            mean = (x - beta / np.sqrt(1 - alpha_bar) * eps) / np.sqrt(1 - beta)
        else:
            x_0 = clip((x - np.sqrt(1 - alpha_bar) * eps) / np.sqrt(alpha_bar))
            mean = np.sqrt(before) * beta / (1 - alpha_bar) * x_0
            mean = mean + np.sqrt(1 - beta) * (1 - before) / (1 - alpha_bar) * x
        var = beta if variance == "fixed_large" else (1 - before) / (1 - alpha_bar) * beta
        z = noise() if t > 1 else 0.0
        x = mean + np.sqrt(var) * z
    return x


def dynamic(x_0, percentile=0.995):
    s = np.maximum(np.quantile(np.abs(x_0).reshape(len(x_0), -1), percentile, axis=1), 1).reshape(-1, 1, 1, 1)
    return np.clip(x_0, -s, s) / s


RULES = {
    "none": (clipping.Unclipped(), None),
    "static": (clipping.Static(), lambda x_0: np.clip(x_0, -1, 1)),
    "dynamic": (clipping.Dynamic(), dynamic),
}


def streams():
    made = Streams(3, "sample", torch.arange(2), (1, 4, 4))
    return lambda: made.normal().double()


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("rule", RULES)
def test_all_1000_steps_equal_a_transcription_of_the_paper(rule, variance):
    ours, theirs = RULES[rule]
    denoise = clipping.Clip(Denoiser(Known(), schedule.linear(), parametrization.Eps()), ours)
    noise, same = streams(), streams()
    *_, last = DDPM(variance=variance).trajectory(denoise, noise(), noise)
    expected = algorithm_2(same().numpy(), lambda: same().numpy(), 1000, theirs, variance)
    assert last.nfe == 1000
    assert last.t == 0
    np.testing.assert_allclose(last.x.numpy(), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("target", [parametrization.Eps, parametrization.X0, parametrization.V])
def test_clipping_that_never_bites_changes_nothing(make, target):
    """A network that predicts the small x_0 it was given: then none, static and dynamic are one formula."""
    made = make(1000)
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.rand(1000, 1, 2, 2, generator=generator, dtype=torch.float64) - 0.5
    eps = torch.randn(1000, 1, 2, 2, generator=generator, dtype=torch.float64)
    t = torch.arange(1, 1001)
    alpha, sigma = (scale.reshape(-1, 1, 1, 1) for scale in made(t))
    output = target().target(x_0, eps, alpha, sigma)

    class Perfect(nn.Module):
        def forward(self, x, t, y):
            return output

    x_t = process.q_sample(made, x_0, t, eps)
    means = []
    for rule, _ in RULES.values():
        denoise = clipping.Clip(Denoiser(Perfect(), made, target()), rule)
        means.append(DDPM().step(SolverState(denoise, lambda: torch.zeros_like(x_t)), x_t, t, t - 1))
    assert torch.equal(means[0], means[1])
    assert torch.equal(means[0], means[2])
    beta, eps_scale = made.beta(t - 1, t).reshape(-1, 1, 1, 1), sigma
    paper = (x_t - beta / eps_scale * eps) / (1 - beta).sqrt()
    torch.testing.assert_close(means[0], paper, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("sampler", [DDPM(), DDPM(variance="fixed_large"), DDIM(eta=1.0)])
def test_the_last_step_adds_no_noise_decided_per_image(sampler):
    denoise = clipping.Clip(Denoiser(Known(), schedule.linear(), parametrization.Eps()), clipping.Unclipped())
    x_t = torch.ones(3, 1, 2, 2, dtype=torch.float64)
    t = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    quiet = sampler.step(SolverState(denoise, lambda: torch.zeros_like(x_t)), x_t, t, t - 1)
    loud = sampler.step(SolverState(denoise, lambda: torch.full_like(x_t, 100.0)), x_t, t, t - 1)
    moved = (loud - quiet).abs().amax((1, 2, 3))
    assert moved[0] == 0
    assert moved[1] > 0.1
    assert moved[2] == 0


def test_images_at_different_times_step_as_they_would_alone():
    denoise = clipping.Clip(Denoiser(Known(), schedule.linear(), parametrization.Eps()), clipping.Static())
    x_t = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = torch.full_like(x_t, 0.5)
    t, s = torch.tensor([1000.0, 37.0, 1.0]), torch.tensor([900.0, 36.0, 0.0])
    together = DDPM().step(SolverState(denoise, lambda: z), x_t, t, s)
    for i in range(3):
        alone = DDPM().step(SolverState(denoise, lambda i=i: z[i : i + 1]), x_t[i : i + 1], t[i], s[i])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)
