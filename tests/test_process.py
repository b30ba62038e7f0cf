import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from diffusion import process, schedule

ALL = [schedule.linear, schedule.cosine, schedule.sigmoid, schedule.quadratic]


def test_q_sample_is_equation_4_per_image():
    made = schedule.linear()
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 1, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([1.0, 500.0, 1000.0])
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[[0, 499, 999]].reshape(3, 1, 1, 1)
    expected = np.sqrt(alpha_bar) * x_0.numpy() + np.sqrt(1 - alpha_bar) * eps.numpy()
    np.testing.assert_allclose(process.q_sample(made, x_0, t, eps), expected, rtol=1e-10)


@pytest.mark.parametrize("make", ALL)
def test_q_posterior_is_bayes_rule(make):
    """q(x_s | x_t, x_0) is proportional to q(x_t | x_s) q(x_s | x_0): two Gaussians multiplied by their precisions."""
    made = make(1000)
    s, t = torch.tensor([0.5, 10, 300, 700]), torch.tensor([1.0, 11, 900, 999])
    x_0, x_t = torch.full((4, 1), 0.7, dtype=torch.float64), torch.full((4, 1), -0.4, dtype=torch.float64)
    (alpha_s, sigma_s), beta = made(s), made.beta(s, t)
    alpha_ts = (1 - beta).sqrt()
    precision = 1 / sigma_s**2 + alpha_ts**2 / beta
    mean = (alpha_s * 0.7 / sigma_s**2 + alpha_ts * -0.4 / beta) / precision
    got_mean, got_variance = process.q_posterior(made, x_0, x_t, s, t)
    torch.testing.assert_close(got_mean[:, 0], mean, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(got_variance[:, 0], 1 / precision, rtol=1e-8, atol=1e-12)


def test_q_posterior_at_0_is_x_0_without_variance():
    x_0, x_t = torch.ones(2, 1), torch.zeros(2, 1)
    mean, variance = process.q_posterior(schedule.linear(), x_0, x_t, torch.zeros(2), torch.tensor([1.0, 400.0]))
    torch.testing.assert_close(mean, x_0)
    assert (variance == 0).all()


@pytest.mark.parametrize("make", [*ALL, schedule.VP])
def test_the_bound_of_a_single_step_is_finite(make):
    """There is no step before the only one, whose posterior variance could be taken."""
    x_0, x_t = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    variance = process.bound_variance(make(1), 0, 1, 0.0, x_t)
    torch.testing.assert_close(variance, torch.full_like(variance, make(1).beta(0, 1).item()))
    assert torch.isfinite(process.vlb_term(make(1), x_0, x_0 + 0.1, x_t, 0, 1, 0.0)).all()


def test_the_variance_of_the_decoder_is_the_posterior_s_of_the_step_before():
    made, x = schedule.linear(), torch.zeros(1, 1, dtype=torch.float64)
    _, second = process.q_posterior(made, x, x, 1, 2)
    torch.testing.assert_close(process.bound_variance(made, 0, 1, 0.0, x), second)
    torch.testing.assert_close(process.bound_variance(made, 1, 2, 0.0, x), second)
    torch.testing.assert_close(process.bound_variance(made, 0, 1, 1.0, x), made.beta(0, 1))


@pytest.mark.parametrize(("x_0", "mean"), [(1.0, 0.7), (-1.0, -0.7), (0.5019608, 0.2), (-0.5019608, -0.2), (0.6, 0.9)])
def test_the_tails_of_the_decoder_keep_their_digits_in_float32(x_0, mean):
    """Against the logarithms of both tails in float64: one minus a number near 1 would have no digits left."""
    std = 0.05
    near, far = ((abs(x_0 - mean) + edge / 255) / std for edge in (-1, 1))
    tail = (
        0 if abs(x_0) == 1 else np.exp(norm.logsf(far) - norm.logsf(near))
    )  # the outermost values take what is beyond
    expected = norm.logsf(near) + np.log1p(-tail)
    got = process.discretized_log_likelihood(*map(torch.tensor, (x_0, mean, std)))
    assert got.item() == pytest.approx(expected, rel=1e-4)


def test_q_posterior_refuses_to_go_up():
    x = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="from t down to s"):
        process.q_posterior(schedule.linear(), x, x, 5, 5)


def test_kl_equals_its_integral():
    for mean, variance, other_mean, other_variance in [(0.3, 0.5, -0.2, 0.9), (1.0, 0.01, 1.1, 0.02), (0, 2, 0, 2)]:
        p, q = (
            torch.distributions.Normal(mean, variance**0.5),
            torch.distributions.Normal(other_mean, other_variance**0.5),
        )

        def integrand(x, p=p, q=q):
            x = torch.tensor(x, dtype=torch.float64)
            return (p.log_prob(x).exp() * (p.log_prob(x) - q.log_prob(x))).item()

        width = 12 * variance**0.5
        expected, _ = quad(integrand, mean - width, mean + width, epsabs=1e-12)
        numbers = (
            torch.tensor(float(value), dtype=torch.float64) for value in (mean, variance, other_mean, other_variance)
        )
        assert process.gaussian_kl(*numbers).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("std", [0.002, 0.05, 1.0])
@pytest.mark.parametrize("mean", [-1.3, -0.2, 0.9])
def test_the_decoder_is_a_distribution_over_256_values(mean, std):
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    log_likelihood = process.discretized_log_likelihood(values, torch.tensor(mean).double(), torch.tensor(std).double())
    assert log_likelihood.exp().sum().item() == pytest.approx(1, abs=1e-8)
    if std < 1:  # a wide one has more mass in the tails
        assert values[log_likelihood.argmax()] == pytest.approx(max(-1, min(1, mean)), abs=1 / 255 + 1e-9)


def test_terms_of_the_bound_have_their_closed_form():
    """With the posterior's own variance a term is (SNR_s - SNR_t) / 2 |x_0 error|^2 (Kingma et al. 2021, Eq. 13)."""
    made, generator = schedule.cosine(1000), torch.Generator().manual_seed(0)
    x_0, predicted, eps = torch.randn(3, 4, 1, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([2.0, 50, 500, 1000], dtype=torch.float64)
    x_t = process.q_sample(made, x_0, t, eps)
    term = process.vlb_term(made, x_0, predicted, x_t, t - 1, t, mix=0.0)
    snr_s, snr_t = made.log_snr(t - 1).exp(), made.log_snr(t).exp()
    torch.testing.assert_close(
        term, (snr_s - snr_t) / 2 * (x_0 - predicted).square().mean((1, 2, 3)), rtol=1e-6, atol=1e-9
    )
