"""The floor of the loss: the smallest of any denoiser on a training set (Xu et al. 2025, arXiv 2506.13763).

At each t it is the uncertainty of x_0 given x_t, for a finite set of known images:

    E|x_0 - E[x_0 | x_t]|^2 = E|x_0|^2 - E|E[x_0 | x_t]|^2.

It is the floor for *memorising*: at low noise x_t determines its image, and the floor falls to 0. A network that
generalises stays above it there, and even more so its loss on other images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion.evaluation.empirical import BLOCK, Empirical, EmpiricalDenoiser
from diffusion.ground import random
from diffusion.losses.objective import L2, Objective
from diffusion.losses.timesteps import GOLDEN, steps
from diffusion.process import Noised, q_sample
from diffusion.schedule import Schedule, widest

_SUBSETS = 16
_DRAWS = 1024  # per block; the set is read once per block
_EXPONENTS = 2**20  # per block


@dataclass(frozen=True)
class Floor:
    """Independent estimates of the floor at times t, the mean over the elements of an image.

    t: (n,), in steps, float64. estimates: (m, n), float64.
    """

    t: Tensor
    estimates: Tensor

    @property
    def value(self) -> Tensor:
        """(n,)."""
        return self.estimates.mean(0)

    @property
    def standard_error(self) -> Tensor:
        """(n,)."""
        return self.estimates.std(0) / math.sqrt(len(self.estimates))

    def mean(self) -> tuple[float, float]:
        """The mean over the times, and its standard error; all times have equal weight."""
        means = self.estimates.mean(1)
        return means.mean().item(), (means.std() / math.sqrt(len(means))).item()

    def loss(self, objective: Objective, schedule: Schedule) -> "Floor | None":
        """A floor of the x_0 error converted to the loss of `objective`, of hybrid only its squared error. None
        for an objective without a squared error: its smallest value is unknown."""
        if not isinstance(objective, L2):
            return None
        _, sigma = schedule(self.t)
        weight = objective.weighting(schedule, self.t)  # of the v error, which is the x_0 error / sigma_t
        return replace(
            self, estimates=objective.weighting.of_loss(weight / sigma**2 * self.estimates, schedule, self.t)
        )


def middles(T: int, parts: int = 20) -> Tensor:
    """Midpoints of equal parts of the steps 1..T, float64: their mean approximates that over all steps. All steps if T
    <= parts."""
    parts = min(parts, T)
    return (torch.arange(parts).double() + 0.5) * T / parts + 0.5


@torch.no_grad()
def floor(
    schedule: Schedule,
    data: Empirical,
    t: Tensor,
    draws: int = 512,
    seed: int = 0,
    rows: int | None = None,
    device: torch.device | str = "cpu",
    tick: Callable[[int], object] = lambda pairs: None,
) -> Floor:
    """The floor of the x_0 error at times t > 0, (n,), from `draws` of a training image x_0 and its noise, the same at
    every t.

    Given x_t, the image x_0 and another draw x' of the posterior are exchangeable, so that E|x_0 - x'|^2 is twice the
    floor:

        floor = E[sum_i w_i |x_0 - x_i|^2] / 2,
        w_i proportional to exp(-SNR_t |x_0 - x_i|^2 / 2 - sqrt(SNR_t) eps . (x_0 - x_i)).

    Neither the distance nor the scalar product depends on t: all times share two matrix products with the set. These
    are the weights of -|x_t - alpha_t x_i|^2 / (2 sigma_t^2), relative to that of x_0, whose exponent is 0.

    rows: maximum number of images that represent the set; None: all, and each draw is an unbiased estimate. Otherwise
    16 random subsets, each with its part of the draws, give one estimate each, so that the standard error includes
    both. There an image other than x_0 counts (N - 1) / (rows - 1) times: unbiased in numerator and denominator. The
    ratio is still biased downwards: it misses near images. tick: called with the number of finished pairs of a draw
    and an image of the set, draws x rows in total.
    """
    subsets = 1 if rows is None or rows >= len(data) else _SUBSETS
    rows, draws = min(rows or len(data), len(data)), -(-draws // subsets)
    found = []
    for number in range(subsets):
        order = random.permutation(seed, f"floor/x_0/{number}", len(data))[:rows]
        parts = []
        for index in torch.arange(draws).split(_DRAWS):
            eps = random.normal(seed, f"floor/eps/{number}", index, data.x_0(order[:1]).shape[1:]).to(device)
            parts.append(_estimates(schedule, data, t.double(), order[index % rows], eps, order.sort().values, tick))
        found.append(torch.cat(parts))
    estimates = torch.cat(found) if subsets == 1 else torch.stack([each.mean(0) for each in found])
    return Floor(t.double(), estimates)


def _estimates(
    schedule: Schedule,
    data: Empirical,
    t: Tensor,
    drawn: Tensor,
    eps: Tensor,
    rows: Tensor,
    tick: Callable[[int], object],
) -> Tensor:
    """Estimates of each draw, (m, n), float64. drawn: int64 (m,), the rows of their images; eps: (m, C, H, W); rows:
    int64, of the set."""
    x_0 = data.x_0(drawn, eps.device).flatten(1)
    centre = x_0.mean(0)
    x_0, eps = x_0 - centre, eps.to(x_0).flatten(1)
    squares, both = x_0.square().sum(1, keepdim=True), torch.cat([x_0, eps])
    with_own = (eps * x_0).sum(1, keepdim=True)
    alpha, sigma = schedule(t)
    coefficients = torch.stack([-((alpha / sigma) ** 2) / 2, -alpha / sigma], dim=1).to(x_0)
    kinds = data.kinds.repeat(1 + data.mirrored)
    sums = x_0.new_zeros(len(x_0), len(t), 2, dtype=widest(x_0.device))
    for some in rows.split(BLOCK):
        x = data.x_0(some, eps.device).flatten(1) - centre
        of_x_0, of_eps = (both @ x.T).chunk(2)
        distance = (squares + x.square().sum(1) - 2 * of_x_0).clamp_(min=0)
        exponents = torch.stack([distance, with_own - of_eps], dim=1)
        counts = ((drawn[:, None] != some) & (kinds[drawn, None] == kinds[some])).to(x)
        summands = torch.stack([counts * distance, counts], dim=2)
        for few in torch.arange(len(x_0)).split(max(1, _EXPONENTS // (len(t) * len(some)))):
            sums[few] += (coefficients @ exponents[few]).exp_() @ summands[few]
        tick(len(drawn) * len(some))
    repeated = (len(data) - 1) / max(len(rows) - 1, 1)
    weighted, total = (repeated * sums).unbind(2)
    return (weighted / (1 + total) / 2 / x_0.shape[1]).cpu().double()


def posterior_means(
    schedule: Schedule, data: Empirical, n: int, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[Noised, Tensor]:
    """n training images at fixed t, evenly spread over 1..T, and fixed noise, with x_0 replaced by E[x_0 | x_t] and eps
    by the matching one; and their rows in the set, int64 (n,).

    The squared error of a denoiser D on them is its error above the floor, without the noise of a difference:

        E|D(x_t) - x_0|^2 = floor + E|D(x_t) - E[x_0 | x_t]|^2.
    """
    index = torch.arange(n)
    rows = random.permutation(seed, "gap/x_0", len(data))[index % len(data)]
    t = steps(index.double() * GOLDEN % 1, schedule.T).float().to(device)
    x_0 = data.x_0(rows, device)
    eps = random.normal(seed, "gap/eps", index, x_0.shape[1:]).to(x_0)
    exact = EmpiricalDenoiser(schedule, data)(q_sample(schedule, x_0, t, eps), t, data.conditions(rows))
    return Noised(exact.x_0, exact.eps, t, exact.alpha, exact.sigma, exact.x_t), rows
