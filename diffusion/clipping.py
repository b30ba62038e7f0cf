"""Clipping of the reconstructed x_0, as a wrapper around a denoiser: none, static, dynamic."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import PositiveFraction, checked
from diffusion.denoiser import Denoise, Prediction
from diffusion.ground.errors import UserError
from diffusion.schedule import precise

Bounds = tuple[float, float]  # the least and the largest value of x_0


class Clipping(ABC):
    """What becomes of a reconstructed x_0."""

    @abstractmethod
    def __call__(self, x_0: Tensor) -> Tensor:
        """x_0: (B, C, H, W). Returns the same shape."""

    @abstractmethod
    def __str__(self) -> str:
        """Its choice, and its values, as a row of results names it."""


@dataclass(frozen=True)
class Unclipped(Clipping):
    """x_0 as it was reconstructed: Algorithm 2 to the letter."""

    def __str__(self) -> str:
        return "none"

    def __call__(self, x_0: Tensor) -> Tensor:
        return x_0


@dataclass(frozen=True)
class Static(Clipping):
    """x_0 clipped to the bounds of its space. Raises UserError where it has none."""

    bounds: Bounds | None = field(default=(-1.0, 1.0), repr=False)

    def __post_init__(self):
        if self.bounds is None:
            raise UserError("clipping=static clips x_0 to bounds, which this space has not: say clipping=none")

    def __str__(self) -> str:
        return "static"

    def __call__(self, x_0: Tensor) -> Tensor:
        assert self.bounds is not None  # see __post_init__
        return x_0.clamp(*self.bounds)


@checked
@dataclass(frozen=True)
class Dynamic(Clipping):
    """Dynamic thresholding (Saharia et al. 2022, Imagen): each image is clipped to its own percentile s of |x_0|, at
    least 1, and divided by s.

    bounds: of x_0's space. Raises UserError for others than [-1, 1].
    """

    percentile: PositiveFraction = 0.995
    bounds: Bounds | None = field(default=(-1.0, 1.0), repr=False)

    def __post_init__(self):
        if self.bounds != (-1.0, 1.0):
            raise UserError(
                "clipping=dynamic brings x_0 to [-1, 1], which are not this space's bounds: say clipping=none"
            )

    def __str__(self) -> str:
        return f"dynamic(percentile={self.percentile})"

    def __call__(self, x_0: Tensor) -> Tensor:
        s = _quantile(x_0.flatten(1).abs(), self.percentile).clamp(min=1)
        s = s.reshape(-1, *[1] * (x_0.ndim - 1))
        return x_0.clamp(-s, s) / s


def _quantile(x: Tensor, q: float) -> Tensor:
    """torch's own, bit for bit, of each row of x (B, n), on devices without float64 as well. Returns (B,)."""
    place = torch.tensor(q, dtype=x.dtype).item() * (x.shape[1] - 1)
    x, k = x.sort(dim=1).values, math.floor(place)
    return torch.lerp(precise(x[:, k]), precise(x[:, math.ceil(place)]), place - k).to(x)


class Clip:
    """A denoiser whose x_0 passes through `clip`; its eps, v and score follow."""

    def __init__(self, denoiser: Denoise, clip: Callable[[Tensor], Tensor]):
        self.denoiser = denoiser
        self.clip = clip
        self.schedule = denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        prediction = self.denoiser(x_t, t, condition)
        return replace(prediction, x_0=self.clip(prediction.x_0))
