"""Bits per dimension: the variational bound on -log2 p(x_0), term by term (Ho et al. 2020, Eq. 5)."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from diffusion.clipping import Clip, Clipping
from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import Count, checked
from diffusion.data.base import Data
from diffusion.denoiser import Denoiser, Prediction
from diffusion.evaluation import plots
from diffusion.evaluation.metrics.base import ModelMetric, Score
from diffusion.ground import random
from diffusion.ground.bar import Bar
from diffusion.ground.errors import Notice, UserError
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.process import gaussian_kl, q_sample, vlb_term
from diffusion.sampling.section import Sampling
from diffusion.schedule import Schedule, broadcast
from diffusion.spaces.base import Space

_MIX = {"auto": None, "fixed_small": 0.0, "fixed_large": 1.0}  # see `process.reverse_variance`; None: as learned
_UNIT = {True: "bits/dim", False: "bits/dim of a density in the data's units"}  # key: whether values are discrete


@dataclass(frozen=True)
class Bound:
    """The bound of each of B images in bits per dimension, float64 on the CPU.

    prior: (B,), L_T, the divergence of q(x_T | x_0) from N(0, I). t: int64 (B, steps), the times of the other terms,
    first the 1 of the decoder. terms: (B, steps), L_{t-1}. weights: (B, steps), the weight of each in the sum.
    """

    prior: Tensor
    t: Tensor
    terms: Tensor
    weights: Tensor

    @property
    def decoder(self) -> Tensor:
        """L_0 = -log p(x_0 | x_1), (B,)."""
        return self.terms[:, 0]

    @property
    def diffusion(self) -> Tensor:
        """The sum, or its unbiased estimate, of L_{t-1} over t = 2..T, (B,)."""
        return (self.weights * self.terms)[:, 1:].sum(1)

    @property
    def total(self) -> Tensor:
        """(B,)."""
        return self.prior + self.diffusion + self.decoder

    def by_t(self, T: int) -> Tensor:
        """The mean L_{t-1} of t = 1..T over the images, float64 (T,); nan where no image has a term."""
        k = self.t.flatten() - 1
        return torch.zeros(T).double().index_add(0, k, self.terms.flatten()) / k.bincount(minlength=T)


@checked
class BPD(ModelMetric):
    """The bound over the validation set, in a fixed order of images.

    For a continuous space it is the bound of a density, per stored number and in the units of the data, and may be
    negative.

    n: maximum number of images, evenly spaced over the set; None means all. steps: network evaluations per image, at
    least 2 (the decoder, another term); None means all T terms, fewer give an unbiased estimate. variance: of the
    reverse process: `fixed_small`, that of the posterior; `fixed_large`, beta_t; `auto`, the learned one, or
    fixed_small if none is learned.
    clipping: of the predicted x_0; None clips to the bounds of the space of the model, if any, as Nichol & Dhariwal
    evaluate: x_0 lies within, so that clipping only reduces the error. At late t an error of eps is multiplied
    by sigma_t / alpha_t, 157 at T of the linear schedule.

    Raises UserError for invalid values.
    """

    name = "bpd"

    def __init__(
        self,
        n: Count | None = 1024,
        steps: Annotated[int, Ge(2)] | None = 20,
        variance: Literal["auto", "fixed_small", "fixed_large"] = "auto",
        clipping: Clipping | None = None,
    ):
        self.n, self.steps, self.clipping = n, steps, clipping
        self.variance, self.mix = variance, _MIX[variance]

    def check(self, model: LitDiffusion, data: Data) -> None:
        self._images(data.split("val")[0])
        self._steps(model.denoiser.schedule)
        clipping = self._clipping(model.space)
        if self.clipping is None and model.clip != clipping:
            warnings.warn(
                f"metric.bpd.clipping is {clipping}; that of the model, {model.clip}, applies to sampling",
                Notice,
                stacklevel=2,
            )

    def __call__(
        self, model: LitDiffusion, data: Data, *, seed: int = 0, batch_size: int = 64, sampling: Sampling | None = None
    ) -> Score:
        x, condition = data.split("val")
        n, steps = self._images(x), self._steps(model.denoiser.schedule)
        index = torch.arange(n) * len(x) // n
        bounds = []
        with Bar(total=n * steps, desc="bits/dim", unit=" terms") as bar:
            for rows in index.split(batch_size):
                x_0 = model.space.encode(x[rows]).to(model.device)
                given = condition.rows(rows).to(model.device)
                bounds.append(self.bound(model.denoiser, model.space, x_0, rows, given, seed=seed, tick=bar.update))
        whole = Bound(*(torch.cat(parts) for parts in zip(*map(_fields, bounds), strict=True)))
        return self._score(whole, model, data, seed)

    @torch.no_grad()
    def bound(
        self,
        denoiser: Denoiser,
        space: Space,
        x_0: Tensor,
        index: Tensor,
        condition: Condition | None = None,
        *,
        seed: int = 0,
        tick: Callable[[int], object] = lambda images: None,
    ) -> Bound:
        """The bound of images x_0 (B, C, H, W) of `space`, given their condition.

        index: int64 (B,) on the CPU: an image's noise and times are a function of (seed, its index, steps), so that
        the batch size has no effect. tick: called with the number of images of each network evaluation.
        """
        schedule = denoiser.schedule
        denoise = Clip(denoiser, self._clipping(space))
        steps = self._steps(schedule)
        t, weights = _times(schedule, steps, index, seed)
        terms = []
        for number in range(steps):
            eps = random.normal(seed, "bpd/eps", index * steps + number, x_0.shape[1:]).to(x_0)
            terms.append(self._term(denoise, space, x_0, t[:, number], eps, condition))
            tick(len(x_0))
        return Bound(_bits(_prior(schedule, x_0)), t, _bits(torch.stack(terms, dim=1)), weights)

    def _term(
        self, denoise: Clip, space: Space, x_0: Tensor, t: Tensor, eps: Tensor, condition: Condition | None
    ) -> Tensor:
        x_t = q_sample(denoise.schedule, x_0, t, eps)
        prediction = denoise(x_t, t, condition)
        unit = space.log_unit.to(x_0.dtype).to(x_0.device)

        def log_likelihood(x_0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
            return space.log_likelihood(x_0, mean, std) - unit

        mix = self._mix(prediction, space.discrete)
        return vlb_term(denoise.schedule, x_0, prediction.x_0, x_t, t - 1, t, mix, log_likelihood)

    def _mix(self, prediction: Prediction, discrete: bool) -> Tensor | float:
        """The `mix` of `process.reverse_variance` for the variance of the reverse step.

        The decoder of 8-bit values has the small variance, which gives a better bound (code of Nichol & Dhariwal). That
        of a density has the large one, beta_1: the variance of p(x_0 | x_1) if the density of x_0 is smooth.
        """
        if self.mix is None and prediction.variance_mix is not None:
            return prediction.variance_mix
        later, decoder = self.mix or 0.0, float(not discrete)
        if later == decoder:
            return later
        return broadcast(torch.where(prediction.t > 1, later, decoder), prediction.x_t)

    def _clipping(self, space: Space) -> Clipping:
        return self.clipping or space.clip

    def _images(self, x: Tensor) -> int:
        """The number of images of x that are measured."""
        n = min(self.n or len(x), len(x))
        if n < 2:
            raise UserError(f"metric=bpd has {n} image(s) to measure: expected at least 2, for the standard error")
        return n

    def _steps(self, schedule: Schedule) -> int:
        if self.steps and self.steps > schedule.T:
            raise UserError(f"metric.bpd.steps={self.steps}: the bound has T={schedule.T} terms, null uses all")
        return self.steps or schedule.T

    def _score(self, bound: Bound, model: LitDiffusion, data: Data, seed: int) -> Score:
        n, steps = bound.t.shape
        T, total = model.denoiser.schedule.T, bound.total
        value, error = total.mean().item(), (total.std() / math.sqrt(n)).item()
        learned = self.mix is None and model.objective.learns_variance
        variance = "learned" if learned else self.variance.replace("auto", "fixed_small")
        clipping = str(self._clipping(model.space))
        parts = {name: getattr(bound, name).mean().item() for name in ("prior", "diffusion", "decoder")}
        summary = (
            f"{value:.4f} {_UNIT[model.space.discrete]}, standard error {error:.4f}: variational bound with clipping "
            f"{clipping}, variance {variance}, {steps} of {T} terms of each of {n} images of the validation split of "
            f"{data.name}\n" + ", ".join(f"{name} {part:.4g}" for name, part in parts.items())
        )
        protocol = {"n": n, "steps": steps, "T": T, "variance": variance, "clipping": clipping, "seed": seed}
        figure = plots.draw_terms(bound.by_t(T), parts["prior"])
        return Score(value, {"standard_error": error, "parts": parts}, protocol, summary, figure)


def _fields(bound: Bound) -> tuple[Tensor, ...]:
    return bound.prior, bound.t, bound.terms, bound.weights


def _prior(schedule: Schedule, x_0: Tensor) -> Tensor:
    alpha, sigma = schedule(schedule.T)
    mean, variance = broadcast(alpha, x_0) * x_0, broadcast(sigma**2, x_0)
    return gaussian_kl(mean, variance, x_0.new_zeros(()), x_0.new_ones(())).flatten(1).mean(1)


def _times(schedule: Schedule, steps: int, index: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The times of the terms of each image, int64 (B, steps), and their weights: all T, or the decoder and a draw.

    The draw takes one from each of steps - 1 equal shares of a density p over 2..T, with weight 1 / ((steps - 1) p):
    unbiased for any p. The variance is smaller the closer p is to the terms; p is log(sigma_t / sigma_s), exact for
    data N(0, I) and close enough for images, where a uniform p would mostly miss the few large terms.
    """
    T = schedule.T
    if steps == T:
        return torch.arange(1, T + 1).expand(len(index), T), torch.ones(len(index), T).double()
    p = schedule(torch.arange(1, T + 1))[1].cpu().double().log().diff()
    p = p / p.sum()
    share = torch.arange(steps - 1)
    stream = index[:, None] * steps + share
    u = (share + random.uniform(seed, "bpd/t", stream.flatten()).reshape(stream.shape)) / (steps - 1)
    drawn = torch.searchsorted(p.cumsum(0), u, right=True).clamp(max=T - 2)
    one = torch.ones(len(index), 1)
    return torch.cat([one.long(), drawn + 2], dim=1), torch.cat([one.double(), 1 / ((steps - 1) * p[drawn])], dim=1)


def _bits(nats: Tensor) -> Tensor:
    return nats.cpu().double() / math.log(2)
