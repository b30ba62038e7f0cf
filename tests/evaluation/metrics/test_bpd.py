"""The bound against closed forms: Gaussian data with the exact denoiser, a network that says nothing, known draws."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from diffusion import parametrization, process, schedule
from diffusion.clipping import Static, Unclipped
from diffusion.denoiser import Denoiser
from diffusion.evaluation.metrics.bpd import BPD, _times
from diffusion.ground.errors import UserError
from diffusion.schedule import broadcast
from diffusion.spaces.pixels import Pixels
from diffusion.spaces.standardized import Standardized
from tests.helpers.exact import GaussianDenoiser

MEAN, STD = 0.1, 0.14  # nothing of it is clipped, and the width of a bin, 2/255, is small against it
ENTROPY = math.log2(STD * math.sqrt(2 * math.pi * math.e))
PIXELS = Pixels((1, 16, 16))
BIN = math.log2(2 / 255)


class TrueReverse(GaussianDenoiser):
    """The exact denoiser with the exact variance of q(x_s | x_t), which for Gaussian data is Gaussian: the posterior's
    and what is uncertain in x_0."""

    def __call__(self, x_t, t, condition=None):
        s, t = t - 1, torch.as_tensor(t, dtype=torch.float64)
        (alpha_s, sigma_s), (_, sigma_t), beta = self.schedule(s), self.schedule(t), self.schedule.beta(s, t)
        variance = sigma_s**2 / sigma_t**2 * beta + (alpha_s * beta / sigma_t**2) ** 2 * uncertain(self.schedule, t)
        small = process.bound_variance(self.schedule, s, t, 0, x_t)
        beta, variance = broadcast(beta, x_t), broadcast(variance, x_t)
        mix = (variance.log() - small.log()) / (beta.log() - small.log())
        return replace(super().__call__(x_t, t), variance_mix=mix)


def uncertain(made, t):
    """Var(x_0 | x_t) of the Gaussian data."""
    alpha, sigma = made(t)
    return STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)


def gaussian_data(n, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return MEAN + STD * torch.randn(n, 1, size, size, generator=generator, dtype=torch.float64)


def bound(denoiser, x_0, space=PIXELS, **options):
    return BPD(**{"steps": None, **options}).bound(denoiser, space, x_0, torch.arange(len(x_0)))


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("make", [schedule.linear, schedule.cosine])
def test_every_term_has_its_closed_form_on_gaussian_data(make, variance):
    made = make(200)
    got = bound(GaussianDenoiser(made, MEAN, STD), gaussian_data(256), variance=variance)
    t = torch.arange(2, 201, dtype=torch.float64)
    error = (made.log_snr(t - 1).exp() - made.log_snr(t).exp()) / 2 * uncertain(made, t)
    ratio = made(t - 1)[1] ** 2 / made(t)[1] ** 2  # of the posterior's variance to beta_t
    expected = error if variance == "fixed_small" else ratio * error + (ratio - 1 - ratio.log()) / 2
    mean = got.by_t(200) * math.log(2)
    torch.testing.assert_close(mean[1:], expected, rtol=0.03, atol=0)  # 65,536 squares: 0.6% in each
    assert got.diffusion.mean().item() * math.log(2) == pytest.approx(expected.sum().item(), rel=0.005)
    one = torch.tensor(1.0, dtype=torch.float64)
    v = process.bound_variance(made, 0, 1, 0.0, one.reshape(1, 1)).item()  # in both: see BPD
    decoder = math.log(2 * math.pi * v) / 2 + uncertain(made, one).item() / (2 * v) - math.log(2 / 255)
    assert mean[0].item() == pytest.approx(decoder, abs=0.03)
    alpha, sigma = made(200)
    square = alpha**2 * (MEAN**2 + STD**2)
    prior = (sigma**2 - 1 - (sigma**2).log() + square).item() / 2 / math.log(2)
    assert got.prior.mean().item() == pytest.approx(prior, rel=0.02)


@pytest.mark.parametrize("T", [4, 20])
def test_with_the_true_reverse_process_the_bound_is_the_entropy(T):
    """Nothing is lost but in the prior: -log2 p(x_0) of each image, whatever T, up to the noise of the draw."""
    made = schedule.cosine(T)
    x_0 = gaussian_data(400)
    got = bound(TrueReverse(made, MEAN, STD), x_0)
    of_image = ENTROPY - BIN + (((x_0 - MEAN) / STD).square().mean((1, 2, 3)) - 1) / 2 / math.log(2)
    lost = got.total - of_image
    assert lost.mean().item() == pytest.approx(0, abs=4 * lost.std().item() / 20 + 1e-3)
    assert lost.std().item() / 20 < 0.006
    assert got.total.mean().item() == pytest.approx(ENTROPY - BIN, abs=0.02)


@pytest.mark.parametrize("T", [10, 100])
def test_of_floats_it_is_the_differential_entropy_in_their_own_units(T):
    """Of standardized Gaussian numbers p(x_s | x_t) has the variance beta_t, p(x_0 | x_1) that of the decoder: nothing
    is lost. The channels have entropies 20 bits apart."""
    std, mean = torch.tensor([1e-3, 1e3], dtype=torch.float64), torch.tensor([5.0, -7.0], dtype=torch.float64)
    space = Standardized((2, 16, 16), mean.tolist(), std.tolist(), [0.0, 0.0], [1.0, 1.0])
    made = schedule.cosine(T)
    x_0 = torch.randn(200, 2, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = bound(GaussianDenoiser(made, 0.0, 1.0), x_0, space, variance="fixed_large")
    density = torch.distributions.Normal(mean[:, None, None], std[:, None, None])
    of_image = -density.log_prob(x_0 * std[:, None, None] + mean[:, None, None]).mean((1, 2, 3)) / math.log(2)
    lost = got.total - of_image
    assert lost.mean().item() == pytest.approx(0, abs=4 * lost.std().item() / math.sqrt(200) + 1e-3)
    entropy = math.log2(math.sqrt(2 * math.pi * math.e)) + std.log2().mean().item()
    assert got.total.mean().item() == pytest.approx(entropy, abs=0.03)
    small = bound(GaussianDenoiser(made, 0.0, 1.0), x_0, space).total.mean().item()
    assert small > entropy + 0.03  # a bound: the posterior's variance is too small


def test_of_many_steps_the_terms_sum_to_what_x_1_tells_of_x_0():
    """I(x_0; x_1) - I(x_0; x_T), which the sum nears from above, for any variance; here in equal steps of log-SNR."""
    x_0, lost = gaussian_data(64), []
    for T in 100, 400:
        alpha_bar = torch.linspace(6, -9, T, dtype=torch.float64).sigmoid()
        made = schedule.Table(1 - alpha_bar / torch.cat([torch.ones(1).double(), alpha_bar[:-1]]))
        informed = torch.log1p(STD**2 * made.log_snr(torch.tensor([1.0, T])).exp()) / 2 / math.log(2)
        got = bound(GaussianDenoiser(made, MEAN, STD), x_0).diffusion.mean().item()
        lost.append(got / (informed[0] - informed[1]).item() - 1)
    assert lost[0] == pytest.approx(15 / 100 / 2, rel=0.4)  # of the first order in the size of a step
    assert lost[1] == pytest.approx(lost[0] / 4, abs=0.01)


def test_the_variance_is_the_learnt_one_unless_another_is_asked_for():
    x_0, made = gaussian_data(16), schedule.cosine(50)
    fixed, learnt = GaussianDenoiser(made, MEAN, STD), TrueReverse(made, MEAN, STD)
    assert bound(learnt, x_0).total.mean() < bound(fixed, x_0).total.mean() - 0.1
    for variance in "fixed_small", "fixed_large":
        torch.testing.assert_close(*(bound(one, x_0, variance=variance).total for one in (fixed, learnt)))
    torch.testing.assert_close(bound(fixed, x_0).total, bound(fixed, x_0, variance="fixed_small").total)


class Zero(nn.Module):
    def forward(self, x, t, condition):
        return torch.zeros_like(x)


def test_a_network_that_predicts_x_0_as_0_has_the_cost_of_the_signal():
    made, x_0 = schedule.linear(300), gaussian_data(3)
    got = bound(Denoiser(Zero(), made, parametrization.X0()), x_0)
    snr = made.log_snr(torch.tensor([1.0, 300.0])).exp()
    expected = (snr[0] - snr[1]) / 2 * x_0.square().mean((1, 2, 3)) / math.log(2)  # the sum telescopes
    torch.testing.assert_close(got.diffusion, expected, rtol=1e-6, atol=0)


def test_float32_is_enough():
    made, x_0 = schedule.linear(), gaussian_data(2)
    exact, single = (
        bound(GaussianDenoiser(made, MEAN, STD), x_0.to(dtype)) for dtype in (torch.float64, torch.float32)
    )
    torch.testing.assert_close(single.total, exact.total, rtol=0, atol=5e-4)


def test_a_prediction_is_clipped_to_the_range_of_images():
    made, x_0 = schedule.cosine(20), torch.full((2, 1, 4, 4), 0.9, dtype=torch.float64)

    class Says(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x, t, condition):
            return torch.full_like(x, self.value)

    far, edge = (Denoiser(Says(value), made, parametrization.X0()) for value in (7.0, 1.0))
    torch.testing.assert_close(bound(far, x_0).total, bound(edge, x_0).total)
    assert (bound(far, x_0, clipping=Unclipped()).total > bound(edge, x_0, clipping=Unclipped()).total).all()
    torch.testing.assert_close(bound(far, x_0, clipping=Static()).total, bound(edge, x_0).total)


def test_a_subset_estimates_the_sum_without_bias():
    made, x_0 = schedule.cosine(200), gaussian_data(400)
    denoiser = GaussianDenoiser(made, MEAN, STD)
    full, part = bound(denoiser, x_0), bound(denoiser, x_0, steps=10)
    off = part.total - full.total
    assert off.std().item() / 20 < 0.02
    assert abs(off.mean().item()) < 4 * off.std().item() / 20
    assert part.t.shape == (400, 10)
    assert (part.t[:, 0] == 1).all()


@pytest.mark.parametrize("zero_terminal", [False, True])
def test_every_term_counts_once_on_average(zero_terminal):
    made = schedule.linear(12)
    made = made.with_zero_terminal_snr() if zero_terminal else made
    n = 200_000
    t, weights = _times(made, 5, torch.arange(n), seed=0)
    assert (weights[:, 0] == 1).all()
    for k in range(1, 13):
        counts = (weights * (t == k)).sum(1)
        assert counts.mean().item() == pytest.approx(1, abs=5 * counts.std().item() / math.sqrt(n) + 1e-9)
    assert (t[:, 1:].diff() >= 0).all()  # a draw from each share, in order


@pytest.mark.parametrize("steps", [None, 7])
def test_the_batch_size_does_not_matter_and_the_seed_does(steps):
    denoiser, x_0 = GaussianDenoiser(schedule.cosine(30), MEAN, STD), gaussian_data(6, size=4)
    metric, index = BPD(steps=steps), torch.tensor([0, 5, 90, 91, 500, 9999])
    whole = metric.bound(denoiser, PIXELS, x_0, index).total
    parts = [
        metric.bound(denoiser, PIXELS, x_0[rows], index[rows]).total for rows in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.isclose(whole, metric.bound(denoiser, PIXELS, x_0, index, seed=1).total).any()


def test_invalid_values_are_rejected():
    with pytest.raises(UserError, match=r"metric\.variance='large': expected auto, fixed_small or fixed_large"):
        BPD(variance="large")
    with pytest.raises(UserError, match=r"metric\.steps=1: expected a whole number, 2 or more, or null"):
        BPD(steps=1)
    with pytest.raises(UserError, match=r"metric\.bpd\.steps=31: the bound has T=30 terms"):
        bound(GaussianDenoiser(schedule.cosine(30)), gaussian_data(1), steps=31)
