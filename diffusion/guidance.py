"""Classifier-free guidance, as a wrapper around a denoiser (Ho & Salimans 2022)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser, Prediction
from diffusion.errors import UserError
from diffusion.schedule import Schedule, broadcast, precise


@dataclass(frozen=True)
class Guidance:
    """Moves the prediction away from the unconditional one: v = v_none + scale (v_y - v_none), and so eps and x_0.

    scale: 1 is no guidance. interval: the noise levels at which it acts (Kynkäänniemi et al. 2024), in the unit `of`:
    `t`, in steps, or `sigma`, sigma_t / alpha_t; elsewhere scale is 1. rescale: 0 to 1, how far the result is brought
    back to the standard deviation of v_y (Lin et al. 2023, section 3.4). Raises UserError for what cannot be.
    """

    scale: float = 2.0
    interval: Sequence[float] = (0.0, float("inf"))
    of: str = "t"
    rescale: float = 0.0

    def __post_init__(self):
        if not isinstance(self.scale, int | float) or not math.isfinite(self.scale):
            raise UserError(f"guidance.scale={self.scale!r}: expected a number")
        if self.of not in ("t", "sigma"):
            raise UserError(f"guidance.of={self.of}: expected t or sigma, the unit of guidance.interval")
        if len(self.interval) != 2 or not self.interval[0] <= self.interval[1]:
            raise UserError(f"guidance.interval={list(self.interval)}: expected two numbers, the lower one first")
        if not 0 <= self.rescale <= 1:
            raise UserError(f"guidance.rescale={self.rescale}: expected 0 to 1")

    def unused(self, schedule: Schedule, times: Tensor) -> dict[str, str]:
        """The keys of the command line that have no effect beside the other values, and why. times: that are visited,
        float64 (n,), each way's down to 0."""
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
        """Of each t, 1 where guidance does not act."""
        alpha, sigma = schedule(t)
        level = t.to(alpha) if self.of == "t" else sigma / alpha
        low, high = self.interval
        return torch.where((level >= low) & (level <= high), self.scale, 1.0)

    def wrap(self, denoiser: Denoiser) -> "Guided":
        return Guided(denoiser, self)


class Guided:
    """A denoiser that is guided towards y: two network evaluations in one batch where guidance acts, else one."""

    def __init__(self, denoiser: Denoiser, guidance: Guidance):
        self.denoiser, self.guidance = denoiser, guidance
        self.schedule = denoiser.schedule

    def __call__(
        self, x_t: Tensor, t: Tensor | float, y: Tensor | None = None, x_0_before: Tensor | None = None
    ) -> Prediction:
        t = precise(t)
        scale = self.guidance.scales(self.schedule, t)
        if y is None or (scale == 1).all():
            return self.denoiser(x_t, t, y, x_0_before)
        both = self.denoiser(
            torch.cat([x_t, x_t]),
            torch.cat([t, t]) if t.ndim else t,
            torch.cat([y, torch.full_like(y, -1)]),
            None if x_0_before is None else torch.cat([x_0_before, x_0_before]),
        )
        given, none = both.v.chunk(2)
        v = none + broadcast(scale, x_t) * (given - none)
        if self.guidance.rescale:
            std = [x.flatten(1).std(dim=1) for x in (given, v)]
            v = v * broadcast(torch.lerp(torch.ones_like(std[0]), std[0] / std[1], self.guidance.rescale), x_t)
        alpha, sigma = self.schedule(t)
        mix = None if both.variance_mix is None else both.variance_mix.chunk(2)[0]
        x_0 = broadcast(alpha, x_t) * x_t - broadcast(sigma, x_t) * v
        return replace(both, x_0=x_0, x_t=x_t, t=t, alpha=alpha, sigma=sigma, variance_mix=mix)
