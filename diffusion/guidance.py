"""Guidance away from the prediction of a weaker denoiser, as a wrapper around a denoiser."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import Count, File, Fraction, Levels, Weights, checked
from diffusion.denoiser import Denoise, Prediction
from diffusion.ground.errors import UserError
from diffusion.schedule import Schedule, broadcast, precise


@dataclass(frozen=True)
class Guidance(ABC):
    """v = v_weak + scale (v - v_weak), and likewise eps and x_0; the subclass defines v_weak.

    scale: 1 means no guidance. interval: the noise levels at which it acts (Kynkäänniemi et al. 2024), in the unit
    `of`: `t`, in steps, or `sigma`, sigma_t / alpha_t; elsewhere scale is 1. rescale: 0 to 1, how far the result is
    rescaled to the standard deviation of v (Lin et al. 2023, section 3.4).
    """

    scale: float = 2.0
    interval: Levels = (0.0, math.inf)
    of: Literal["t", "sigma"] = "t"
    rescale: Fraction = 0.0

    def unused(self, schedule: Schedule, times: Tensor) -> dict[str, str]:
        """The keys of the command line that have no effect given the other values, and why. times: those visited,
        float64 (n,), each trajectory down to 0."""
        if self.scale == 1:
            names = ("guidance.interval", "guidance.of", "guidance.rescale")
            return dict.fromkeys(names, "guidance.scale=1 is no guidance")
        visited = times[times > 0]
        if (self.scales(schedule, visited) == 1).all():
            span = f"t={visited.max():g} to {visited.min():g}"
            return {"guidance": f"none of the sampler's times, {span}, is in guidance.interval (of {self.of})"}
        if self.interval[0] <= 0 and self.interval[1] == float("inf"):
            return {"guidance.of": "guidance.interval holds all times"}
        return {}

    def scales(self, schedule: Schedule, t: Tensor) -> Tensor:
        """The scale at each t: 1 where guidance does not act."""
        alpha, sigma = schedule(t)
        level = t.to(alpha) if self.of == "t" else sigma / alpha
        low, high = self.interval
        return torch.where((level >= low) & (level <= high), self.scale, 1.0)

    @abstractmethod
    def needs(self, condition: Condition | None) -> str | None:
        """A message about what is missing to guide towards `condition`; None if nothing is."""

    @abstractmethod
    def pair(
        self, denoiser: Denoise, x_t: Tensor, t: Tensor, condition: Condition | None
    ) -> tuple[Prediction, Prediction]:
        """The predictions to guide towards and away from."""

    def wrap(self, denoiser: Denoise) -> "Guided":
        return Guided(denoiser, self)


@checked
@dataclass(frozen=True)
class ClassifierFree(Guidance):
    """Away from the prediction without the condition (Ho & Salimans 2022): two evaluations in one batch."""

    def needs(self, condition):
        if condition is None or not condition.asked:
            return "guidance needs a class: set y=..., for a model trained with conditioning=label"
        return None

    def pair(self, denoiser, x_t, t, condition):
        assert condition is not None  # see `needs`
        both = denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]) if t.ndim else t, condition.cat(condition.without()))
        alpha, sigma = denoiser.schedule(t)
        mixes = (None, None) if both.variance_mix is None else both.variance_mix.chunk(2)
        given, none = (
            replace(both, x_0=x_0, x_t=x_t, t=t, alpha=alpha, sigma=sigma, variance_mix=mix)
            for x_0, mix in zip(both.x_0.chunk(2), mixes, strict=True)
        )
        return given, none


@checked
@dataclass(frozen=True)
class TwoModels(Guidance):
    """Guidance by a weaker model of the same data; `pair` defines how it is used.

    ckpt, weights, step: select the model, as `checkpoint.guidance` reads them; weaker: the model itself, which
    `checkpoint.guidance` sets. `wrap` raises UserError if it is missing.
    """

    ckpt: File | None = None
    weights: Weights | None = None
    step: Count | None = None
    weaker: Denoise | None = field(default=None, compare=False, repr=False)

    def __post_init__(self):
        if self.step is not None and self.weights == "raw":
            raise UserError(f"guidance.step={self.step} selects averaged weights: set guidance.weights=ema, or omit it")

    def unused(self, schedule, times):
        found = super().unused(schedule, times)
        names = ("guidance.ckpt", "guidance.weights", "guidance.step") if self.scale == 1 else ()
        return found | dict.fromkeys(names, "guidance.scale=1 is no guidance")

    def needs(self, condition):
        return None

    def wrap(self, denoiser):
        if self.weaker is None and self.scale != 1:
            raise UserError(
                "this guidance needs a weaker model, but has none: choose the guidance at sampling, or set "
                "guidance.ckpt="
            )
        return super().wrap(denoiser)


class Auto(TwoModels):
    """Autoguidance: away from the weaker model under the same condition, if any (Karras et al. 2024, "Guiding a
    diffusion model with a bad version of itself"). Two evaluations, one by each model."""

    def pair(self, denoiser, x_t, t, condition):
        assert self.weaker is not None  # see `wrap`
        return denoiser(x_t, t, condition), self.weaker(x_t, t, condition)


class Guided:
    """A guided denoiser: two network evaluations where guidance acts, else one."""

    def __init__(self, denoiser: Denoise, guidance: Guidance):
        self.denoiser, self.guidance = denoiser, guidance
        self.schedule = denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        t = precise(t)
        scale = self.guidance.scales(self.schedule, t)
        if self.guidance.needs(condition) or (scale == 1).all():
            return self.denoiser(x_t, t, condition)
        good, weak = self.guidance.pair(self.denoiser, x_t, t, condition)
        v = weak.v + broadcast(scale, x_t) * (good.v - weak.v)
        if self.guidance.rescale:
            std = [x.flatten(1).std(dim=1) for x in (good.v, v)]
            v = v * broadcast(torch.lerp(torch.ones_like(std[0]), std[0] / std[1], self.guidance.rescale), x_t)
        x_0 = broadcast(good.alpha, x_t) * x_t - broadcast(good.sigma, x_t) * v
        return replace(good, x_0=x_0, nfe=good.nfe + weak.nfe)
