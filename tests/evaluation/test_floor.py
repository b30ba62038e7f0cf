"""The floor against closed forms, and against the loss of the exact denoiser, which stands on it."""

import math

import pytest
import torch

from diffusion import parametrization
from diffusion.conditioners.condition import Condition
from diffusion.denoiser import Denoise
from diffusion.evaluation import floor as module
from diffusion.evaluation.empirical import Empirical, EmpiricalDenoiser
from diffusion.evaluation.floor import Floor, floor, middles, posterior_means
from diffusion.ground import random
from diffusion.losses.learnt import Learnt
from diffusion.losses.objective import L1, L2, VLB, Huber, Hybrid
from diffusion.losses.weighting import P2, SNR, Simple
from diffusion.process import Noised, q_sample
from diffusion.schedule import cosine, linear
from tests.helpers.exact import GaussianDenoiser
from tests.helpers.small_sets import pictures

TIMES = torch.tensor([1.0, 50, 200, 400, 600, 800, 1000]).double()


def exact_squares(schedule, data, t, n=3000, condition=None, seed=1):
    """Squared error of x_0, the mean of each of n images, of the exact denoiser at one t."""
    index = torch.arange(n)
    rows = index % len(data)
    x_0 = data.x_0(rows)
    eps = random.normal(seed, "test/eps", index, x_0.shape[1:]).to(x_0)
    x_t = q_sample(schedule, x_0, t, eps)
    given = None if condition is None else condition.rows(rows)
    return (EmpiricalDenoiser(schedule, data)(x_t, t, given).x_0 - x_0).square().flatten(1).mean(1)


def agree(found, error, other, its_error, errors=2.0):
    assert abs(found - other) <= errors * math.hypot(error, its_error) + 1e-12, (found, error, other, its_error)


@pytest.mark.parametrize("make", [linear, cosine])
def test_closed_form_of_a_gaussian_within_1_percent(make):
    """sum over the eigenvalues of lambda sigma^2 / (alpha^2 lambda + sigma^2). The sample has the moments exactly, and
    at these times hundreds of images lie within the noise of x_t: a finite set is as good as the Gaussian there."""
    n, factor = 4000, torch.tensor([[0.9, 0.0], [0.5, 0.3]]).double()
    normal = random.normal(0, "test/gaussian", torch.arange(n), (2,)).double()
    normal -= normal.mean(0)
    normal = torch.linalg.solve_triangular(torch.linalg.cholesky(normal.T @ normal / n), normal.T, upper=False).T
    x_0 = 0.7 + normal @ factor.T
    schedule = make(1000)
    t = torch.tensor([200, 400, 700]).double()
    alpha, sigma = (scale[:, None] for scale in schedule(t))
    variances = torch.linalg.eigvalsh(factor @ factor.T)
    expected = (variances * sigma**2 / (alpha**2 * variances + sigma**2)).mean(1)
    found = floor(schedule, Empirical(x_0.float().reshape(n, 1, 1, 2)), t, draws=25_000)
    torch.testing.assert_close(found.value, expected, rtol=0.01, atol=0)
    assert (found.standard_error < 0.006 * expected).all()


def test_closed_form_of_two_points():
    """x_0 = -a or a: E[x_0 | x_t] = a tanh(alpha a x_t / sigma^2)."""
    a, schedule = 0.4, linear(1000)
    alpha, sigma = (scale[:, None] for scale in schedule(TIMES))
    z = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    density = (-(z**2) / 2).exp() / math.sqrt(2 * math.pi)
    squares = (a * torch.tanh(alpha * a * (alpha * a + sigma * z) / sigma**2)).square()
    expected = a**2 - torch.trapezoid(squares * density, z)
    found = floor(schedule, Empirical(torch.tensor([-a, a]).double().reshape(2, 1, 1, 1)), TIMES, draws=20_000)
    for each in zip(found.value, found.standard_error, expected, strict=True):
        agree(*each, 0)
    assert found.standard_error.max() < 0.01 * a**2


def test_the_exact_denoiser_reaches_the_floor():
    schedule, data = linear(1000), Empirical(pictures())
    found = floor(schedule, data, TIMES, draws=3000)
    squares = torch.stack([exact_squares(schedule, data, t) for t in TIMES], dim=1)
    exact = Floor(TIMES, squares)
    for each in zip(found.value, found.standard_error, exact.value, exact.standard_error, strict=True):
        agree(*each)
    agree(*found.mean(), *exact.mean())
    assert 0 < found.value[1] < found.value[3] < data.images.var()
    # E|x_0|^2 - E|E[x_0 | x_t]|^2 is the variance of the set where x_t says nothing
    agree(found.value[-1], found.standard_error[-1], data.images.var(0).mean(), 0)


@pytest.mark.parametrize("made", [parametrization.Eps(), parametrization.V(), parametrization.EDM(0.5)])
@pytest.mark.parametrize("objective", [L2(Simple()), L2(SNR()), L2(P2()), L2(Learnt(8)), Hybrid(P2(), scale=0.0)])
def test_the_floor_in_the_unit_of_the_loss(made, objective):
    """For any parametrization the loss of the exact denoiser, by the objective's own code, is the converted floor."""
    schedule, data = cosine(1000), Empirical(pictures())
    t, n = torch.tensor([300.0, 700.0]).double(), 3000
    index = torch.arange(n)
    x_0 = data.x_0(index % len(data))
    eps = random.normal(1, "test/eps", index, x_0.shape[1:]).double()
    losses = []
    with torch.no_grad():
        for each in t:
            noised = Noised.of(schedule, x_0, each.expand(n), eps)
            denoiser = WithOutput(EmpiricalDenoiser(schedule, data), made)
            output = denoiser.output(noised.x_t, noised.t)
            mix = torch.zeros_like(output) if isinstance(objective, Hybrid) else None
            losses.append(objective.of_output(denoiser, noised, output, mix))
        found = floor(schedule, data, t, draws=n).loss(objective, schedule)
    exact = Floor(t, torch.stack(losses, dim=1))
    for each in zip(found.value, found.standard_error, exact.value, exact.standard_error, strict=True):
        agree(*each)


class WithOutput:
    """The network's output of a denoiser that has no network."""

    def __init__(self, denoise: Denoise, made: parametrization.Parametrization):
        self.denoise, self.parametrization, self.schedule = denoise, made, denoise.schedule

    def output(self, x_t, t):
        prediction = self.denoise(x_t, t)
        shape = (-1, 1, 1, 1)
        c_skip, c_out = self.parametrization.coefficients(
            prediction.alpha.reshape(shape), prediction.sigma.reshape(shape)
        )
        return (prediction.x_0 - c_skip * x_t) / c_out

    def x_0_of(self, output, x_t, alpha, sigma):
        return x_t


@pytest.mark.parametrize("objective", [L1(Simple()), Huber(Simple()), VLB(Simple())])
def test_what_is_no_squared_error_has_no_known_floor(objective):
    schedule = linear(1000)
    assert floor(schedule, Empirical(pictures(20)), TIMES, draws=4).loss(objective, schedule) is None


def test_blocks_do_not_matter(monkeypatch):
    schedule, data = linear(1000), Empirical(pictures())
    x_t = pictures(9, seed=2)
    t = torch.tensor([1.0, 3, 10, 100, 300, 500, 700, 900, 1000]).double()
    expected, whole = EmpiricalDenoiser(schedule, data)(x_t, t).x_0, floor(schedule, data, TIMES, draws=50)
    for block in (1, 7, 299):
        torch.testing.assert_close(EmpiricalDenoiser(schedule, data, block)(x_t, t).x_0, expected)
        monkeypatch.setattr(module, "BLOCK", block)
        monkeypatch.setattr(module, "_EXPONENTS", 10 * block)
        torch.testing.assert_close(floor(schedule, data, TIMES, draws=50).estimates, whole.estimates)


def test_a_subset_represents_the_dataset():
    """Its standard error covers the choice of the subset; where few images are near x_t it errs downwards."""
    schedule, data = linear(1000), Empirical(pictures(4000))
    whole, part = floor(schedule, data, TIMES, draws=4000), floor(schedule, data, TIMES, draws=4000, rows=1000)
    assert part.estimates.shape == (16, len(TIMES))
    for k in (0, 5, 6):
        agree(whole.value[k], whole.standard_error[k], part.value[k], part.standard_error[k])
    assert (part.value < whole.value + 2 * part.standard_error).all()
    assert (part.value > 0.85 * whole.value)[3:].all()
    naive = floor(schedule, Empirical(data.images[:1000]), TIMES, draws=4000)  # a smaller set has a lower floor
    assert (naive.value < part.value)[2:5].all()


def test_given_its_class_an_image_is_less_uncertain():
    """The denoiser of a class is that of its images alone, and the floor is the mean of theirs."""
    schedule, x_0 = linear(1000), pictures()
    label = torch.arange(len(x_0)) % 2
    condition = Condition.of(label=label).without(torch.arange(len(x_0)) % 10 == 9, ["label"])
    data = Empirical(x_0, condition=condition)
    parts = [Empirical(x_0[rows]) for rows in (label == 0, (label == 1) & ~condition.absent["label"])]
    x_t = pictures(6, seed=2)
    for k, part in enumerate(parts):
        asked = Condition.of(label=torch.full((6,), k))
        got = EmpiricalDenoiser(schedule, data)(x_t, 300, asked).x_0
        torch.testing.assert_close(got, EmpiricalDenoiser(schedule, part)(x_t, 300).x_0)
    whole, free = floor(schedule, data, TIMES, draws=3000), floor(schedule, Empirical(x_0), TIMES, draws=3000)
    assert (whole.value < free.value)[2:5].all()
    for k, t in enumerate(TIMES):
        squares = exact_squares(schedule, data, t, condition=condition)
        agree(whole.value[k], whole.standard_error[k], squares.mean(), squares.std() / math.sqrt(len(squares)))
    with pytest.raises(ValueError, match="no image"):
        EmpiricalDenoiser(schedule, data)(x_t, 300, Condition.of(label=torch.full((6,), 2)))


def test_any_t_is_finite_in_float32_and_as_in_float64():
    """At T, where alpha may be 0; at t = 1, with images that are nearly the same, and with one far away."""
    x_0 = torch.cat([pictures(100), pictures(100) + 1e-3, 50 * pictures(1)])
    for schedule in (linear(1000), linear(1000).with_zero_terminal_snr()):
        single, double = Empirical(x_0.float()), Empirical(x_0)
        x_t = q_sample(schedule, x_0[:7], TIMES, pictures(7, seed=2))
        wide, narrow = (
            EmpiricalDenoiser(schedule, double)(x_t, TIMES),
            EmpiricalDenoiser(schedule, single)(x_t.float(), TIMES),
        )
        assert narrow.x_0.dtype == torch.float32
        torch.testing.assert_close(narrow.x_0.double(), wide.x_0, rtol=1e-3, atol=1e-3)
        found, expected = (
            floor(schedule, each, TIMES, draws=201).loss(L2(Simple()), schedule).value for each in (single, double)
        )
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_noise_is_a_function_of_the_seed():
    schedule, data = linear(1000), Empirical(pictures())
    first, again, other = (floor(schedule, data, TIMES, draws=20, seed=seed).estimates for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_loss_of_any_denoiser_is_the_floor_and_its_distance_from_the_exact_one():
    """E|D - x_0|^2 = floor + E|D - E[x_0 | x_t]|^2, where the second is measured on the posterior means."""
    schedule, data, n = linear(1000), Empirical(pictures()), 4000
    means, rows = posterior_means(schedule, data, n)
    assert (means.t == means.t.round()).all()
    assert means.t.min() == 1
    assert means.t.max() == 1000
    other = GaussianDenoiser(schedule, 0.0, 0.5)(means.x_t, means.t).x_0
    weight = (means.alpha / means.sigma).square()[:, None, None, None] ** 0.25  # of all times alike
    gap = (weight * (other - means.x_0).square()).flatten(1).mean(1)
    loss = (weight * (other - data.x_0(rows)).square()).flatten(1).mean(1)
    t = middles(1000, 100)
    alpha, sigma = schedule(t)
    found = floor(schedule, data, t, draws=2000)
    below = Floor(t, (alpha / sigma).sqrt() * found.estimates)
    mean, error = below.mean()
    agree(loss.mean(), loss.std() / math.sqrt(n), mean + gap.mean(), math.hypot(error, gap.std() / math.sqrt(n)))
    assert mean > 5 * error
    assert gap.mean() > 5 * gap.std() / math.sqrt(n)


@pytest.mark.parametrize(
    ("T", "expected"), [(4, [1, 2, 3, 4]), (40, torch.arange(20) * 2 + 1.5), (1000, torch.arange(20) * 50 + 25.5)]
)
def test_middles_are_the_means_of_equal_parts_of_the_steps(T, expected):
    assert middles(T).tolist() == torch.as_tensor(expected).double().tolist()
