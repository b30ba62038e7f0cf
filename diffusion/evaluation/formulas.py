"""Distances between two sets of features, and detection of copies, as pure functions.

Features are float64 (n, d) on the CPU, one row per image; `features` are those of the samples, `reference` or `train`
those of images. Anything else, a non-finite number, unequal d or too few rows raises ValueError. Random numbers
depend on (seed, purpose, index) only. No function holds more than BLOCK x n distances at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.ground.random import normal, permutation

BLOCK = 256  # rows or directions per block


def _check(least: int, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or tensor.dtype != torch.float64 or tensor.device.type != "cpu":
            found = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
            raise ValueError(f"{name}: expected torch.float64 (n, d) on cpu, got {found}")
        if len(tensor) < least:
            raise ValueError(f"{name}: expected at least {least} rows, got {len(tensor)}")
        if not tensor.isfinite().all():
            raise ValueError(f"{name}: expected finite numbers")
    _check_widths({name: tensor.shape[1] for name, tensor in tensors.items()})


def _check_widths(widths: dict[str, int]) -> None:
    if len({*widths.values()}) > 1:
        raise ValueError("expected equal d, got " + ", ".join(f"{name}: {width}" for name, width in widths.items()))


def _check_count(name: str, count: int, least: int = 1) -> None:
    if count < least:
        raise ValueError(f"{name}: expected at least {least}, got {count}")


@dataclass(frozen=True, eq=False)
class Moments:
    """n: number of rows. mean: float64 (d,). cov: float64 (d, d), divided by n - 1."""

    n: int
    mean: Tensor
    cov: Tensor

    def __post_init__(self) -> None:
        _check(1, mean=self.mean[None], cov=self.cov)
        _check_widths({"mean": len(self.mean), "cov": len(self.cov)})

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """The moments of features (n, d), n >= 2."""
        _check(2, features=features)
        n, d = features.shape
        mean, scatter = features.mean(0), features.new_zeros(d, d)
        for rows in features.split(BLOCK):
            scatter.addmm_((rows - mean).T, rows - mean)
        return cls(n, mean, scatter / (n - 1))


def _factor(cov: Tensor) -> Tensor:
    """F with F F^T = cov. Eigenvalues within rounding error are set to 0."""
    values, vectors = torch.linalg.eigh(cov)
    noise = values[-1] * len(values) * torch.finfo(values.dtype).eps
    return vectors * values.where(values > noise, 0).sqrt()


def _frechet(a: Moments, b: Moments, factor_b: Tensor) -> float:
    # The singular values of F_A^T F_B are the roots of the eigenvalues of sqrt(A) B sqrt(A), without the precision
    # loss of the product.
    overlap = torch.linalg.svdvals(_factor(a.cov).T @ factor_b).sum()
    distance = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * overlap
    return max(distance.item(), 0.0)


def frechet(a: Moments, b: Moments) -> float:
    """Frechet distance of two Gaussians, FID with the features of Inception (Heusel et al. 2017, arXiv:1706.08500):

    |mu_a - mu_b|^2 + tr(A) + tr(B) - 2 tr((sqrt(A) B sqrt(A))^(1/2))

    A and B may be singular. It is biased upwards at finite n, by O(1/n) with a constant that differs between models.
    """
    _check_widths({"a": len(a.mean), "b": len(b.mean)})
    return _frechet(a, b, _factor(b.cov))


@dataclass(frozen=True)
class Extrapolation:
    """value: at infinite n. sizes: n of the points. values: the distance at each."""

    value: float
    sizes: tuple[int, ...]
    values: tuple[float, ...]


def frechet_infinity(features: Tensor, reference: Moments, seed: int) -> Extrapolation:
    """Frechet distance at infinite n of samples (Chong & Forsyth 2020, arXiv:1911.07023): FD_n = FD_inf + c / n, fitted
    by least squares to 15 random subsets of features (n, d), of sizes evenly spaced from max(n / 10, 2 d) to n.

    ValueError if n < 4 d: FD_n is not linear in 1 / n for n of a few d. On Gaussians a tenth of the bias of FD_n
    remains at n = 4 d, and less than the spread at n = 20 d. The bias of `reference` is not corrected.
    """
    _check(15, features=features)
    n, d = features.shape
    _check_widths({"features": d, "reference": len(reference.mean)})
    if n < 4 * d:
        raise ValueError(f"features: expected at least 4 d = {4 * d} rows to extrapolate from, got {n}")
    sizes = torch.linspace(max(n / 10, 2 * d), n, 15, dtype=torch.float64).ceil().long().tolist()
    subsets = (permutation(seed, f"frechet_infinity/{i}", n)[:size] for i, size in enumerate(sizes))
    factor = _factor(reference.cov)
    values = [_frechet(Moments.of(features[subset]), reference, factor) for subset in subsets]
    line = torch.tensor([[1, n / size] for size in sizes], dtype=torch.float64)
    value = torch.linalg.lstsq(line, torch.tensor(values, dtype=torch.float64)[:, None]).solution[0].item()
    return Extrapolation(value, tuple(sizes), tuple(values))


def _mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased MMD^2 of x, y (n, d) with the kernel (<x, y> / d + 1)^3."""
    n, d = x.shape

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / d + 1) ** 3

    def within(a: Tensor) -> Tensor:
        k = kernel(a, a)
        return (k.sum() - k.trace()) / (n * (n - 1))

    return (within(x) + within(y) - 2 * kernel(x, y).mean()).item()


def kid(features: Tensor, reference: Tensor, seed: int, subsets: int = 100, size: int = 1000) -> tuple[float, float]:
    """Kernel Inception distance (Bińkowski et al. 2018, arXiv:1801.01401): the mean of the unbiased estimates

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),  k = (<x, y> / d + 1)^3

    over `subsets` random pairs of subsets of min(size, n, m) rows, and their standard deviation (divided by `subsets`).
    features: (n, d), reference: (m, d). It may be negative; its expectation is 0 for equal distributions.
    """
    _check(2, features=features, reference=reference)
    _check_count("subsets", subsets)
    _check_count("size", size, 2)
    size = min(size, len(features), len(reference))

    def subset(purpose: str, rows: Tensor) -> Tensor:
        return rows[permutation(seed, purpose, len(rows))[:size]]

    estimates = torch.tensor(
        [_mmd(subset(f"kid/features/{i}", features), subset(f"kid/reference/{i}", reference)) for i in range(subsets)],
        dtype=torch.float64,
    )
    return estimates.mean().item(), estimates.std(correction=0).item()


def mind(features: Tensor, reference: Tensor, seed: int, projections: int = 1000) -> float:
    """Monge Inception distance (Berthet et al. 2026, arXiv:2605.06797): sliced squared Wasserstein-2, scaled by 3 d,

    (3 d / K) sum_k W_2^2(u_k^T x, u_k^T y),  W_2^2 = int_0^1 (Q_x(t) - Q_y(t))^2 dt,  u_k uniform on the unit sphere

    with the quantile functions Q of the projected rows, computed by sorting. features: (n, d), reference: (m, d).

    The definition is that of torch-fidelity's metric_mind.py (newer than 0.4.0) and of copies of the listing of the
    paper, which agree: squared, alpha = 3 d, 1000 directions (100 to 1000 are recommended); the paper itself was not
    available. A translation by v gives 3 |v|^2, where FD is |v|^2. They truncate to n = m; here all rows are used for
    unequal n, by the exact integral. It is biased upwards at finite n: compare at equal n.
    """
    _check(1, features=features, reference=reference)
    _check_count("projections", projections)
    (n, d), m = features.shape, len(reference)
    # Both Q are constant between two `ends`, in units of 1 / (n m).
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    widths = ends.diff(prepend=torch.tensor([0])).double() / (n * m)
    of_features, of_reference = (ends - 1) // m, (ends - 1) // n
    total = 0.0
    for index in torch.arange(projections).split(BLOCK):
        directions = F.normalize(normal(seed, "mind", index, (d,)).double())
        x = (directions @ features.T).sort().values[:, of_features]
        y = (directions @ reference.T).sort().values[:, of_reference]
        total += ((x - y).square() @ widths).sum().item()
    return 3 * d * total / projections


def _squared_distances(features: Tensor, reference: Tensor) -> Iterator[Tensor]:
    """From each BLOCK of features (n, d) to all of reference (m, d): (b, m), computed as |x|^2 - 2 <x, y> + |y|^2 about
    the mean of reference, with its rounding errors."""
    centre = reference.mean(0)
    y = reference - centre
    norms = y.square().sum(1)
    for rows in features.split(BLOCK):
        x = rows - centre
        yield torch.addmm(norms, x, y.T, alpha=-2).add_(x.square().sum(1, keepdim=True)).clamp_(min=0)


def nearest(features: Tensor, reference: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest rows of reference (m, d), m >= k, to each of features (n, d), by Euclidean distance.

    Returns the distances, float64 (n, k) ascending, and the rows' indices, int64 (n, k). The distances are computed
    from the differences, so that of a copy is exactly 0; a row that is itself in reference finds itself.
    """
    _check(0, features=features)
    _check_count("k", k)
    _check(k, reference=reference)
    _check_widths({"features": features.shape[1], "reference": reference.shape[1]})
    distances, indices = features.new_empty(len(features), k), torch.empty(len(features), k, dtype=torch.int64)
    blocks = (each.split(BLOCK) for each in (features, distances, indices))
    for squares, rows, distance, index in zip(_squared_distances(features, reference), *blocks, strict=True):
        candidates = squares.topk(k, largest=False).indices
        found = reference[candidates].sub_(rows[:, None]).norm(dim=-1).sort(stable=True)
        distance.copy_(found.values)
        index.copy_(candidates.gather(1, found.indices))
    return distances, indices


@dataclass(frozen=True)
class Prdc:
    """The result of `prdc`; each is at least 0, and about 1 if the two distributions are equal."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(features: Tensor, reference: Tensor, k: int = 5) -> Prdc:
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991), density and coverage (Naeem et al.
    2020, arXiv:2002.09797). B(x) is the ball about x with the k-th nearest neighbour of x in the same set on its
    surface:

    precision = share of samples x in some B(y)       recall   = share of references y in some B(x)
    density   = mean_x #{y: x in B(y)} / k            coverage = share of references y with some x in B(y)

    features: (n, d), n > k; reference: (m, d), m > k. Balls are closed, with 1e-9 of their squared radius for rounding.
    """
    _check_count("k", k)
    _check(k + 1, features=features, reference=reference)
    radii_x, radii_y = (nearest(each, each, k + 1)[0][:, -1].square() * (1 + 1e-9) for each in (features, reference))
    inside, pairs = 0, 0
    recalled = covered = torch.zeros(len(reference), dtype=torch.bool)
    for squares, radii in zip(_squared_distances(features, reference), radii_x.split(BLOCK), strict=True):
        in_reference = squares <= radii_y
        inside += in_reference.any(1).sum().item()
        pairs += in_reference.sum().item()
        covered = covered | in_reference.any(0)
        recalled = recalled | (squares <= radii[:, None]).any(0)
    n = len(features)
    return Prdc(inside / n, recalled.double().mean().item(), pairs / (k * n), covered.double().mean().item())


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """Inception score (Salimans et al. 2016, arXiv:1606.03498): exp(mean_x KL(p(y|x) || p(y))) of each of `splits`
    consecutive parts, with p(y) the mean of the part; their mean and standard deviation (divided by `splits`).

    probabilities: p(y|x), float64 (n, classes), n >= splits, rows that sum to 1. Images sorted by class must be
    shuffled first.
    """
    _check_count("splits", splits)
    _check(splits, probabilities=probabilities)
    if probabilities.min() < 0 or (probabilities.sum(1) - 1).abs().max() > 1e-4:
        raise ValueError("probabilities: expected rows of numbers >= 0 that sum to 1")

    def score(p: Tensor) -> float:
        return (torch.xlogy(p, p) - torch.xlogy(p, p.mean(0))).sum(1).mean().exp().item()

    ends = [i * len(probabilities) // splits for i in range(1, splits)]
    scores = torch.tensor([score(part) for part in probabilities.tensor_split(ends)], dtype=torch.float64)
    return scores.mean().item(), scores.std(correction=0).item()


def authenticity(features: Tensor, train: Tensor) -> float:
    """Share of samples that are farther from their nearest training point than it is from its nearest other one
    (Alaa et al. 2022, arXiv:2102.08921). features: (n, d), train: (m, d), m >= 2.

    It is far below 1 even without copying, as many nearest neighbours are mutual: for new points of the distribution of
    train it is 1/3 in one dimension and about 1/2 in many. Compare it with the authenticity of held-out images.
    """
    _check(1, features=features)
    _check(2, train=train)
    distances, indices = nearest(features, train, 1)
    usual = nearest(train[indices[:, 0]], train, 2)[0][:, 1]
    return (distances[:, 0] > usual).double().mean().item()


@dataclass(frozen=True, eq=False)
class Copies:
    """ratios: d_1 / mean(d_1, ..., d_k) of each sample, float64 (n,). sources: their nearest training rows, int64 (n,).
    threshold: samples with a ratio up to it are copies. copied: bool (n,). rate: their share. control: the share of
    held-out images that would be called copies."""

    ratios: Tensor
    sources: Tensor
    threshold: float
    copied: Tensor
    rate: float
    control: float


def copies(features: Tensor, train: Tensor, held_out: Tensor, k: int = 50, level: float = 0.01) -> Copies:
    """Which samples are copies of training images, with held-out images as the control.

    The statistic is that of Carlini et al. 2023 (arXiv:2301.13188): the distance to the nearest training point over the
    mean distance to the k nearest, d_1 / mean(d_1, ..., d_k), small if a sample is closer to one training point than
    the local density explains, and 0 for an exact copy. A sample is called a copy if the ratio is at most the
    floor(level (h + 1))-th smallest of the h held-out images. For a new sample distributed like the held-out images
    the probability is at most `level`, for any distribution (conformal prediction); `control` is the share of the
    held-out images themselves. Copies show as `rate` above `control`, and first in the order of the ratios.

    features: (n, d); train: (m, d), m >= k; held_out: (h, d), h >= 1 / level - 1, without training images. If train
    contains an image k times or more, only exact copies of it are detected.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number in (0, 1), got {level}")
    _check_count("k", k, 2)
    _check(1, features=features)
    _check(1, held_out=held_out)
    order = int(level * (len(held_out) + 1))
    if order < 1:
        raise ValueError(f"held_out: expected at least 1 / level - 1 = {1 / level - 1:g} rows, got {len(held_out)}")

    def ratios_and_sources(rows: Tensor) -> tuple[Tensor, Tensor]:
        distances, indices = nearest(rows, train, k)
        return (distances[:, 0] / distances.mean(1)).nan_to_num(nan=0.0), indices[:, 0]

    ratios, sources = ratios_and_sources(features)
    controls, _ = ratios_and_sources(held_out)
    threshold = controls.sort().values[order - 1].item()
    copied = ratios <= threshold
    rate, control = (each.double().mean().item() for each in (copied, controls <= threshold))
    return Copies(ratios, sources, threshold, copied, rate, control)
