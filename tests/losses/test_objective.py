"""Objectives and weightings: one loss in different units, known optima, and every combination."""

import itertools
from typing import NamedTuple

import pytest
import torch
from scipy.integrate import quad
from torch import nn

from diffusion import parametrization, process, schedule
from diffusion.denoiser import Denoiser
from diffusion.ground.errors import UserError
from diffusion.losses import weighting
from diffusion.losses.objective import L1, L2, VLB, Huber, Hybrid, by_quarter
from tests.helpers.exact import GaussianDenoiser

WEIGHTINGS = [
    weighting.Simple(), weighting.MinSNR(), weighting.SNR(), weighting.P2(), weighting.Sigmoid(), weighting.VLB(),
]  # fmt: skip
PARAMETRIZATIONS = [
    parametrization.Eps(),
    parametrization.X0(),
    parametrization.V(),
    parametrization.EDM(),
    parametrization.EDM(1.0),
]
TABLES = [
    schedule.linear,
    schedule.cosine,
    schedule.sigmoid,
    schedule.quadratic,
    schedule.VP,
    schedule.ContinuousCosine,
]


def name(value):
    return getattr(value, "__name__", type(value).__name__)


class Says(nn.Module):
    """A network that always says the same thing."""

    def __init__(self, output):
        super().__init__()
        self.said = output

    def forward(self, x, t, y):
        return self.said


class Batch(NamedTuple):
    x_0: torch.Tensor
    t: torch.Tensor
    eps: torch.Tensor


def loss_of(objective, denoiser, x_0, t, eps):
    return objective(denoiser, process.Noised.of(denoiser.schedule, x_0, t, eps))


@pytest.fixture
def batch():
    x_0, eps = torch.randn(2, 6, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Batch(x_0, torch.tensor([1.0, 2.0, 100.0, 500.0, 900.0, 1000.0], dtype=torch.float64), eps)


def says_x_0(parametrization, made, batch, x_0):
    """The denoiser whose network says of the batch what stands for this x_0."""
    alpha, sigma = (scale.reshape(-1, 1, 1, 1) for scale in made(batch.t))
    c_skip, c_out = parametrization.coefficients(alpha, sigma)
    x_t = process.q_sample(made, batch.x_0, batch.t, batch.eps)
    return Denoiser(Says((x_0 - c_skip * x_t) / c_out), made, parametrization)


@pytest.mark.parametrize("objective", [L2, L1, Huber], ids=name)
@pytest.mark.parametrize("weight", WEIGHTINGS, ids=name)
def test_the_loss_does_not_depend_on_what_the_network_predicts(weight, objective, batch):
    """The same x_0, said as eps, x_0, v or EDM's F, costs the same."""
    made, wrong = schedule.cosine(1000), batch.x_0 + 0.1 * torch.sin(5 * batch.x_0)
    losses = [
        loss_of(objective(weight), says_x_0(parametrization, made, batch, wrong), *batch)
        for parametrization in PARAMETRIZATIONS
    ]
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-6, atol=1e-12)


PAPERS = {  # weight of the squared error of x_0, as each paper writes it, from SNR at t
    "Simple": lambda snr, made, t: snr,
    "MinSNR": lambda snr, made, t: snr.clamp(max=5),
    "SNR": lambda snr, made, t: snr + 1,
    "P2": lambda snr, made, t: snr / (1 + snr),
    "VLB": lambda snr, made, t: 1000 / 2 * (made.log_snr(t - 1).exp() - snr),
    "Sigmoid": lambda snr, made, t: 1000 / 2 * (made.log_snr(t - 1).exp() - snr) / (1 + snr),
}


@pytest.mark.parametrize("weight", WEIGHTINGS, ids=name)
def test_weightings_are_those_of_their_papers(weight):
    made = schedule.linear()
    t = torch.arange(2, 1001, dtype=torch.float64)
    snr = made.log_snr(t).exp()
    of_x_0 = weight(made, t) / made(t)[1] ** 2  # from the error of v to that of x_0
    torch.testing.assert_close(of_x_0, PAPERS[name(weight)](snr, made, t), rtol=1e-6, atol=0)


def test_eps_mse_with_weight_w_is_x_0_mse_with_weight_w_snr(batch):
    made, wrong = schedule.cosine(1000), batch.x_0 + 0.3
    loss = loss_of(L2(weighting.P2()), says_x_0(parametrization.V(), made, batch, wrong), *batch)
    snr = made.log_snr(batch.t).exp()
    w = 1 / (1 + snr)
    torch.testing.assert_close(loss, w * snr * 0.3**2)
    alpha, sigma = made(batch.t)
    eps_error = alpha / sigma * 0.3
    torch.testing.assert_close(loss, w * eps_error**2)


def test_simple_is_the_plain_mse_and_l1_the_plain_distance_of_eps(batch):
    made = schedule.linear()
    message = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    denoiser, error = Denoiser(Says(message), made, parametrization.Eps()), message - batch.eps
    torch.testing.assert_close(loss_of(L2(weighting.Simple()), denoiser, *batch), error.square().mean((1, 2, 3)))
    torch.testing.assert_close(loss_of(L1(weighting.Simple()), denoiser, *batch), error.abs().mean((1, 2, 3)))
    huber = nn.functional.huber_loss(message, batch.eps, reduction="none", delta=0.5).mean((1, 2, 3))
    torch.testing.assert_close(loss_of(Huber(weighting.Simple(), delta=0.5), denoiser, *batch), huber)


@pytest.mark.parametrize("weight", WEIGHTINGS, ids=name)
@pytest.mark.parametrize("make", TABLES, ids=name)
def test_weights_are_finite_and_positive_at_both_ends_of_time(weight, make):
    made = make(1000)
    w = weight(made, torch.tensor([1.0, 1.5, 2.0, 999.0, 1000.0], dtype=torch.float64))
    assert torch.isfinite(w).all()
    assert (w > 0).all()


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


def test_the_vlb_weighting_is_the_bound(batch):
    made, wrong = schedule.cosine(1000), batch.x_0 + 0.01
    loss = loss_of(L2(weighting.VLB()), says_x_0(parametrization.X0(), made, batch, wrong), *batch)
    x_t = process.q_sample(made, batch.x_0, batch.t, batch.eps)
    term = process.vlb_term(made, batch.x_0, wrong, x_t, batch.t - 1, batch.t, mix=0.0)
    torch.testing.assert_close(loss[1:], 1000 * term[1:], rtol=1e-6, atol=1e-9)  # the decoder at t = 1 is another


def test_the_best_variance_is_learnt_between_the_two_bounds(batch):
    """L_hybrid moves only the variance by the bound: its gradient there is L_vlb's, and the mean's is L_simple's."""
    made = schedule.cosine(1000)
    message = torch.zeros(6, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    denoiser = Denoiser(Says(message), made, parametrization.Eps())
    [hybrid] = torch.autograd.grad(loss_of(Hybrid(weighting.Simple(), scale=1.0), denoiser, *batch).sum(), message)
    [bound] = torch.autograd.grad(loss_of(VLB(weighting.Simple()), denoiser, *batch).sum(), message)
    [simple] = torch.autograd.grad(loss_of(L2(weighting.Simple()), denoiser, *batch).sum(), message)
    torch.testing.assert_close(hybrid[:, 1], bound[:, 1])
    torch.testing.assert_close(hybrid[:, 0], simple[:, 0])
    assert bound[:, 1].abs().min() > 0


def test_the_bound_has_no_weighting_besides():
    with pytest.raises(UserError, match="loss=vlb has its own weights"):
        VLB(weighting.MinSNR())


class Linear(nn.Module):
    """Enough for Gaussian data: at each of a few t an affine function of x."""

    def __init__(self, times, channels=1):
        super().__init__()
        self.times = times
        self.gain = nn.Parameter(torch.zeros(len(times), channels))
        self.bias = nn.Parameter(torch.zeros(len(times), channels))

    def forward(self, x, t, y):
        row = torch.searchsorted(self.times, t.double() + 1)
        return self.gain[row, :, None, None] * x + self.bias[row, :, None, None]


OBJECTIVES = [*(L2(weight) for weight in WEIGHTINGS), Huber(weighting.Simple(), delta=5.0), L1(weighting.Simple()),
    Hybrid(weighting.Simple()), VLB(weighting.Simple())]  # fmt: skip


OPTIMA = [
    *((objective, parametrization.V()) for objective in OBJECTIVES),
    *((L2(weighting.Simple()), one) for one in PARAMETRIZATIONS),
]


@pytest.mark.parametrize(
    ("objective", "parametrization"), OPTIMA, ids=lambda one: f"{name(one)} {name(getattr(one, 'weighting', None))}"
)
def test_every_objective_has_its_optimum_at_the_exact_denoiser(objective, parametrization):
    """Gaussian data: the posterior is symmetric, so its mean is the optimum of each distance. A network that can be
    exact is trained until it is."""
    made, times = schedule.cosine(1000), torch.tensor([50.0, 300, 600, 900], dtype=torch.float64)
    exact = GaussianDenoiser(made, mean=0.3, std=0.5)
    generator = torch.Generator().manual_seed(0)
    network = Linear(times, 2 if objective.learns_variance else 1).double()
    denoiser = Denoiser(network, made, parametrization)
    t = times.repeat_interleave(64)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    for _ in range(200):
        noise, eps = torch.randn(2, len(t), 1, 4, 4, generator=generator, dtype=torch.float64)
        loss = loss_of(objective, denoiser, 0.3 + 0.5 * noise, t, eps).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    for at in times:
        x_t = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
        alpha, sigma = made(at)
        learnt, right = denoiser(x_t, at), exact(x_t, at)
        torch.testing.assert_close(alpha / sigma * learnt.x_0, alpha / sigma * right.x_0, rtol=0, atol=0.08)


@pytest.mark.parametrize("make", TABLES, ids=name)
def test_every_combination_takes_a_step(make):
    """Prediction x loss x weighting x schedule: a finite loss with a gradient, and a step that lowers it."""
    made, generator = make(1000), torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 8, 1, 4, 4, generator=generator)
    t = torch.tensor([1.0, 2, 10, 250, 500, 750, 999, 1000])
    for predicted, kind, weight in itertools.product(PARAMETRIZATIONS[:4], (L2, L1, Huber, Hybrid), WEIGHTINGS):
        objective = kind(weight)
        network = nn.Conv2d(1, 2 if objective.learns_variance else 1, 1)
        network.forward = lambda x, t, condition, conv=network: nn.functional.conv2d(x, conv.weight, conv.bias)
        denoiser = Denoiser(network, made, predicted)
        loss = loss_of(objective, denoiser, x_0, t, eps).mean()
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        size = sum(gradient.square().sum() for gradient in gradients)
        message = f"{name(predicted)} {kind.__name__} {name(weight)}"
        assert torch.isfinite(loss), message
        assert size > 0, message
        if kind is Hybrid:  # which is no gradient of its own value: the bound's is stopped at the mean
            continue
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= 1e-3 * gradient / size.sqrt()
            assert loss_of(objective, denoiser, x_0, t, eps).mean() < loss, message


def test_quarters_of_t():
    t = torch.tensor([1.0, 250, 251, 500, 501, 750, 751, 1000])
    sums, counts = by_quarter(torch.arange(8.0), t, 1000)
    assert counts.tolist() == [2, 2, 2, 2]
    assert sums.tolist() == [1, 5, 9, 13]
