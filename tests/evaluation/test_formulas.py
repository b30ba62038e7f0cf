"""Each formula against an independent implementation on the same features, and against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from diffusion.evaluation import formulas
from diffusion.evaluation.formulas import (
    Moments,
    authenticity,
    copies,
    frechet,
    frechet_infinity,
    inception_score,
    kid,
    mind,
    nearest,
    prdc,
)
from diffusion.ground.random import normal, permutation


def gaussian(seed, n, d, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scale + shift


def correlated(seed, n, d):
    """Rows like those of a network's features: correlated, skewed, not about 0."""
    return (gaussian(seed, n, d) @ gaussian(0, d, d)).relu() + gaussian(seed + 1000, n, d, scale=0.1)


X, Y = correlated(1, 700, 12), correlated(2, 700, 12) * 1.1 + 0.2


def close(value, rel=1e-9, **tolerance):
    return pytest.approx(value, rel=rel, **tolerance)


# Fréchet distance


def test_moments_are_numpys():
    moments = Moments.of(X)
    assert moments.n == 700
    np.testing.assert_allclose(moments.mean, X.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.cov, np.cov(X.numpy(), rowvar=False), rtol=1e-11)


def test_frechet_is_torch_fidelitys():
    [theirs] = fid_statistics_to_metric(fid_features_to_statistics(X), fid_features_to_statistics(Y), False).values()
    assert frechet(Moments.of(X), Moments.of(Y)) == close(theirs)


def test_frechet_of_gaussians_that_commute():
    d = 40
    rotation, _ = torch.linalg.qr(gaussian(0, d, d))
    a, b = torch.linspace(0, 3, d).double().relu(), torch.linspace(-1, 2, d).double().relu()  # both singular
    moments = [
        Moments(9, mean, (rotation * each) @ rotation.T) for mean, each in zip(gaussian(1, 2, d), (a, b), strict=True)
    ]
    expected = (gaussian(1, 2, d).diff(dim=0) ** 2).sum() + ((a.sqrt() - b.sqrt()) ** 2).sum()
    assert frechet(*moments) == close(expected.item())


def test_frechet_of_lines():
    """Covariances u u^T and v v^T, of rank 1 in 300 dimensions."""
    u, v = gaussian(0, 2, 300)
    a, b = (Moments(2, torch.zeros(300).double(), each.outer(each)) for each in (u, v))
    assert frechet(a, b) == close((u @ u + v @ v - 2 * (u @ v).abs()).item())


def test_frechet_of_a_set_and_itself():
    for features in (X, gaussian(0, 30, 100)):  # the second with a singular covariance
        moments = Moments.of(features)
        assert 0 <= frechet(moments, moments) <= 1e-12 * moments.cov.trace().item()


def test_frechet_of_a_translation():
    shift = gaussian(3, 1, 12)
    assert frechet(Moments.of(X), Moments.of(X + shift)) == close(shift.square().sum().item())


def test_frechet_is_symmetric():
    assert frechet(Moments.of(X), Moments.of(Y)) == close(frechet(Moments.of(Y), Moments.of(X)))


def test_frechet_infinity_is_the_intercept():
    found = frechet_infinity(X, Moments.of(Y), seed=0)
    assert len(found.sizes) == len(found.values) == 15
    assert (found.sizes[0], found.sizes[-1]) == (70, 700)
    assert found.values[-1] == close(frechet(Moments.of(X), Moments.of(Y)))
    assert found.value == close(np.polyfit(1 / np.array(found.sizes), found.values, 1)[1])
    assert frechet_infinity(X[:60], Moments.of(Y), seed=0).sizes[0] == 24  # 2 d
    subset = X[permutation(0, "frechet_infinity/3", 700)[: found.sizes[3]]]
    assert found.values[3] == close(frechet(Moments.of(subset), Moments.of(Y)))


@pytest.mark.parametrize(("rows_per_d", "left"), [(5, 0.25), (20, 0.15)])
def test_frechet_infinity_is_nearly_unbiased(rows_per_d, left):
    """The mean error over 60 sets of samples is at most `left` of the plain distance's, up to 2 standard errors."""
    d = 8
    scale = torch.linspace(0.2, 2, d).double()
    true, reference = (scale - 1).square().sum().item(), Moments(1, torch.zeros(d).double(), torch.eye(d).double())
    found = [frechet_infinity(gaussian(seed, rows_per_d * d, d, scale), reference, seed) for seed in range(60)]
    errors, plain = (
        np.array([each.value for each in found]) - true,
        np.array([each.values[-1] for each in found]) - true,
    )
    assert plain.mean() > 5 * plain.std() / math.sqrt(60)
    assert abs(errors.mean()) < left * plain.mean() + 2 * errors.std() / math.sqrt(60)


# KID


def test_kid_is_torch_fidelitys():
    """A subset of all rows is the same for them and for us."""
    theirs = kid_features_to_metric(X, Y, kid_subsets=2, kid_subset_size=700, verbose=False)
    assert kid(X, Y, seed=0, subsets=2) == close(tuple(theirs.values()), abs=1e-9)


def test_kid_of_subsets_is_scikit_learns_kernel():
    def estimate(i):
        x = X[permutation(4, f"kid/features/{i}", 700)[:50]]
        y = Y[permutation(4, f"kid/reference/{i}", 700)[:50]]
        off = ~np.eye(50, dtype=bool)
        xx, yy, xy = (polynomial_kernel(*pair, degree=3, gamma=1 / 12, coef0=1) for pair in ((x, x), (y, y), (x, y)))
        return xx[off].mean() + yy[off].mean() - 2 * xy.mean()

    estimates = [estimate(i) for i in range(20)]
    assert kid(X, Y, seed=4, subsets=20, size=50) == close((np.mean(estimates), np.std(estimates)))


def test_kid_takes_all_of_the_smaller_set():
    mean, _ = kid(X[:60], Y, seed=0, subsets=3)
    assert mean == kid(X[:60], Y, seed=0, subsets=3, size=60)[0]


def test_kid_of_one_distribution_is_zero_on_average():
    values = np.array(
        [kid(correlated(s, 200, 6), correlated(s + 500, 200, 6), seed=s, subsets=1)[0] for s in range(80)]
    )
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(80)
    assert values.min() < 0


# MIND


def quantile_distance(x, y):
    """W_2^2 of two samples of unequal n, by repeating each point up to the least common multiple."""
    n = math.lcm(len(x), len(y))
    return np.mean((np.repeat(np.sort(x), n // len(x)) - np.repeat(np.sort(y), n // len(y))) ** 2)


@pytest.mark.parametrize("n", [700, 699, 300, 7])
def test_mind_is_the_repeated_sets(n):
    directions = normal(3, "mind", torch.arange(30), (12,)).double().numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    distances = [quantile_distance(X.numpy()[:n] @ each, Y.numpy() @ each) for each in directions]
    assert mind(X[:n], Y, seed=3, projections=30) == close(3 * 12 * np.mean(distances))


def test_mind_of_a_translation():
    shift = gaussian(3, 1, 12)
    directions = normal(0, "mind", torch.arange(4000), (12,)).double()
    along = (torch.nn.functional.normalize(directions) @ shift.T).square().mean().item()
    found = mind(X, X + shift, seed=0, projections=4000)
    assert found == close(3 * 12 * along)
    assert found == close(3 * shift.square().sum().item(), rel=0.1)  # three times FD; 4 standard errors
    assert mind(X[:, :1], X[:, :1] + 2, seed=0, projections=5) == close(12)


def test_mind_of_round_gaussians_is_three_times_frechet():
    d, shift = 5, 0.3
    found = mind(gaussian(0, 20_000, d), gaussian(1, 20_000, d, scale=1.5, shift=shift), seed=0, projections=500)
    assert found == close(3 * d * (shift**2 + 0.5**2), rel=0.03)


def test_mind_of_a_set_and_itself():
    assert mind(X, X, seed=0) == 0
    assert mind(X, X.repeat_interleave(3, dim=0), seed=0) < 1e-20  # the same distribution, of another n


def test_mind_of_a_part_of_the_directions():
    """Direction i does not depend on how many there are."""
    both = [mind(X, Y, seed=0, projections=n) * n for n in (40, 41)]
    direction = torch.nn.functional.normalize(normal(0, "mind", torch.tensor([40]), (12,)).double())[0].numpy()
    assert both[1] - both[0] == close(
        3 * 12 * quantile_distance(X.numpy() @ direction, Y.numpy() @ direction), rel=1e-6
    )


# Neighbours


def test_nearest_is_scikit_learns():
    theirs = NearestNeighbors(n_neighbors=9, algorithm="brute").fit(Y).kneighbors(X)
    distances, indices = nearest(X, Y, 9)
    np.testing.assert_allclose(distances, theirs[0], rtol=1e-9)
    np.testing.assert_array_equal(indices, theirs[1])


def test_nearest_of_copies():
    """Far from the origin, where |x|^2 - 2 <x, y> + |y|^2 would cancel."""
    far = X + 1e5
    distances, indices = nearest(far, far, 2)
    assert (distances[:, 0] == 0).all()
    np.testing.assert_array_equal(indices[:, 0], range(700))
    np.testing.assert_allclose(distances[:, 1], nearest(X, X, 2)[0][:, 1], rtol=1e-8)


def test_nearest_orders_by_the_distance_of_the_differences():
    """Two clusters so far apart that the distances within one are below the rounding of their squares."""
    reference = torch.cat([gaussian(1, 20, 3), gaussian(2, 20, 3) + 1e9])
    distances, indices = nearest(reference, reference, 20)
    expected = np.array(cdist(reference, reference))
    np.testing.assert_allclose(distances, np.sort(expected)[:, :20], rtol=1e-12)
    np.testing.assert_array_equal(indices, expected.argsort()[:, :20])


@pytest.mark.parametrize("k", [3, 5])
def test_precision_and_recall_are_torch_fidelitys(k):
    features, reference = X[:500], Y[:400] + 0.5
    theirs = prc_features_to_metric(
        features, reference, prc_neighborhood=k, prc_batch_size=100, save_cpu_ram=False, verbose=False
    )
    found = prdc(features, reference, k)
    assert (found.precision, found.recall) == close((theirs["precision"], theirs["recall"]), rel=1e-6)
    assert 0.05 < found.precision < 0.95
    assert 0.05 < found.recall < 0.95


def test_density_and_coverage_are_numpys():
    x, y = X[:500].numpy(), (Y[:400] + 0.5).numpy()
    radii = np.sort(cdist(y, y), axis=1)[:, 5]
    inside = cdist(y, x) <= radii[:, None]
    found = prdc(torch.tensor(x), torch.tensor(y))
    assert (found.density, found.coverage) == close((inside.sum() / (5 * 500), inside.any(1).mean()))
    assert 0.05 < found.coverage < 0.95


def test_prdc_of_a_set_and_itself():
    found = prdc(X, X)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    k = 5  # each point is in its own ball and, on average, in k others
    assert found.density == close((k + 1) / k)


def test_prdc_of_one_distribution_and_of_two_far_ones():
    """P(no sample in a ball of k of m neighbours) is 2^-k for n = m (Naeem et al. 2020, lemma 2)."""
    found = prdc(gaussian(0, 4000, 4), gaussian(1, 4000, 4))
    assert found.density == close(1, rel=0.05)
    assert found.coverage == close(1 - 2**-5, rel=0.01)
    far = prdc(X, X + 1e4)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)


# Inception score


def test_inception_score_is_torch_fidelitys():
    logits = gaussian(5, 703, 10, scale=3)  # 703 does not divide by 10
    theirs = isc_features_to_metric(logits, splits=10, shuffle=False)
    assert inception_score(logits.softmax(1)) == close(tuple(theirs.values()))


def test_inception_score_of_the_best_and_of_the_worst():
    sure = torch.eye(7).double().repeat(20, 1)
    assert inception_score(sure, splits=2) == close((7, 0), abs=1e-12)
    assert inception_score(torch.full((50, 7), 1 / 7).double()) == close((1, 0), abs=1e-12)


# Memorisation


def test_authenticity_is_numpys():
    x, train = X[:300].numpy(), Y[:400].numpy()
    to_train, within = cdist(x, train), cdist(train, train) + np.diag(np.full(400, np.inf))
    expected = np.mean(to_train.min(1) > within.min(1)[to_train.argmin(1)])
    assert authenticity(torch.tensor(x), torch.tensor(train)) == close(expected)


def test_authenticity_of_copies_and_of_new_points():
    train = gaussian(0, 4000, 1)
    assert authenticity(train, train) == authenticity(train, train.repeat(2, 1)) == 0
    # On a line two of three nearest neighbours are mutual.
    assert authenticity(gaussian(1, 4000, 1), train) == close(1 / 3, rel=0.1)
    assert authenticity(train + 100, train) == 1


def clusters(seed, n, d=16):
    """A mixture of ten Gaussians of different widths, on the way to what classes of images are like."""
    which = torch.randint(10, (n,), generator=torch.Generator().manual_seed(seed))
    centres, widths = gaussian(0, 10, d, scale=3), torch.linspace(0.3, 2, 10).double()
    return centres[which] + gaussian(seed + 1, n, d) * widths[which][:, None]


def planted(novel, train, noise):
    """Every hundredth sample is a copy, with noise of `noise` of the original's distance to its nearest neighbour."""
    at = torch.arange(0, len(novel), 100)
    originals = torch.arange(len(at)) * 7 % len(train)
    direction = torch.nn.functional.normalize(gaussian(9, len(at), novel.shape[1]))
    usual = nearest(train[originals], train, 2)[0][:, 1:]
    samples = novel.clone()
    samples[at] = train[originals] + noise * usual * direction
    return samples, at, originals


@pytest.mark.parametrize("noise", [0, 0.05, 0.2])
def test_copies_are_found(noise):
    train, held_out, novel = clusters(10, 3000), clusters(20, 1000), clusters(30, 10_000)
    samples, at, originals = planted(novel, train, noise)
    found = copies(samples, train, held_out)
    recall = found.copied[at].double().mean().item()
    new = torch.ones(len(samples), dtype=torch.bool).index_fill_(0, at, False)
    assert recall >= 0.99
    assert found.control == 0.01
    assert found.copied[new].double().mean().item() < 0.015  # of `level` 0.01, with the error of 1000 held-out images
    assert found.rate == close(found.copied.double().mean().item())
    torch.testing.assert_close(found.sources[at], originals)
    first = found.ratios.argsort()[: len(at)]
    assert np.isin(first, at).mean() >= 0.99


def test_copies_of_digits_are_found():
    pixels = torch.tensor(load_digits().data)[permutation(0, "digits", 1797)]
    train, held_out, novel = pixels[:1000], pixels[1000:1400], pixels[1400:]
    samples, at, originals = planted(novel, train, 0.1)
    found = copies(samples, train, held_out)
    assert found.copied[at].all()
    torch.testing.assert_close(found.sources[at], originals)
    assert found.control == 0.01
    assert found.rate < 0.04


def test_the_control_is_the_rate_of_the_held_out_images():
    train, held_out = clusters(10, 300), clusters(20, 150)
    found = copies(held_out, train, held_out)
    assert found.rate == found.control == 1 / 150
    assert found.threshold == found.ratios.min().item()


def test_new_points_are_called_copies_at_most_at_the_level():
    """Over many draws of the held-out images, the mean is floor(level (h + 1)) / (h + 1)."""
    train = clusters(10, 300)
    rates = [copies(clusters(100 + s, 300), train, clusters(500 + s, 59), level=0.05).rate for s in range(100)]
    assert np.mean(rates) == close(3 / 60, abs=3 * np.std(rates) / 10)


def test_an_image_that_was_trained_on_many_times():
    train = torch.cat([clusters(10, 300), torch.zeros(80, 16).double()])
    found = copies(torch.zeros(1, 16).double(), train, clusters(20, 100))
    assert found.ratios.tolist() == [0]
    assert found.copied.tolist() == [True]


# Of all


ALL = {
    "frechet": lambda x, y: frechet(Moments.of(x), Moments.of(y)),
    "kid": lambda x, y: kid(x, y, seed=0, subsets=1)[0],
    "mind": lambda x, y: mind(x, y, seed=0, projections=50),
    "prdc": lambda x, y: list(vars(prdc(x, y)).values()),
    "inception_score": lambda x, y: inception_score(x.softmax(1), splits=1)[0],
    "authenticity": authenticity,
    "nearest": lambda x, y: nearest(x, y, 4)[0].sum(0).tolist(),
    "copies": lambda x, y: [copies(x, y[:500], y[500:]).rate, copies(x, y[:500], y[500:]).ratios.sum().item()],
}


@pytest.mark.parametrize("name", ALL)
def test_order_of_the_rows_does_not_matter(name):
    x, y = X[permutation(0, "x", 700)], Y[permutation(0, "y", 700)]
    if name == "copies":
        y = torch.cat([Y[:500][permutation(0, "y", 500)], Y[500:][permutation(0, "y", 200)]])
    assert ALL[name](x, y) == close(ALL[name](X, Y))


@pytest.mark.parametrize("block", [1, 33, 10_000])
@pytest.mark.parametrize("name", ALL)
def test_size_of_the_blocks_does_not_matter(name, block, monkeypatch):
    expected = ALL[name](X[:300], Y)
    monkeypatch.setattr(formulas, "BLOCK", block)
    assert ALL[name](X[:300], Y) == close(expected)


def test_seed_decides():
    for formula in (
        lambda seed: frechet_infinity(X, Moments.of(Y), seed).value,
        lambda seed: kid(X, Y, seed, subsets=2, size=50),
        lambda seed: mind(X, Y, seed, projections=5),
    ):
        torch.manual_seed(0)
        first = formula(0)
        torch.manual_seed(1)
        assert formula(0) == first != formula(1)


MISTAKES = {
    "float64": lambda: Moments.of(X.float()),
    "got torch.float64 (12,)": lambda: nearest(X[0], Y, 1),
    "features: expected finite": lambda: Moments.of(X / 0),
    "expected equal d, got features: 3, reference: 12": lambda: nearest(X[:, :3], Y, 1),
    "expected equal d, got a: 3, b: 12": lambda: frechet(Moments.of(X[:, :3]), Moments.of(Y)),
    "expected equal d, got mean: 3, cov: 12": lambda: Moments(9, torch.zeros(3).double(), torch.eye(12).double()),
    "features: expected at least 2 rows, got 1": lambda: Moments.of(X[:1]),
    "4 d = 48 rows": lambda: frechet_infinity(X[:47], Moments.of(Y), 0),
    "subsets: expected at least 1": lambda: kid(X, Y, 0, subsets=0),
    "size: expected at least 2": lambda: kid(X, Y, 0, size=1),
    "projections: expected at least 1": lambda: mind(X, Y, 0, projections=0),
    "reference: expected at least 701 rows": lambda: nearest(X, Y, 701),
    "reference: expected at least 6 rows, got 5": lambda: prdc(X, Y[:5]),
    "sum to 1": lambda: inception_score(X.softmax(1) * 1.1),
    "probabilities: expected at least 10 rows": lambda: inception_score(X.softmax(1)[:9]),
    "train: expected at least 2 rows": lambda: authenticity(X, Y[:1]),
    "1 / level - 1 = 99 rows, got 98": lambda: copies(X, Y, Y[:98]),
    "level: expected a number in (0, 1)": lambda: copies(X, Y, Y, level=0),
    "k: expected at least 2": lambda: copies(X, Y, Y, k=1),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        MISTAKES[message]()
    assert message in str(error.value)
