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

Bounds = tuple[float, float]  # the smallest and the largest value of x_0


class Clipping(ABC):
    """Maps a reconstructed x_0 to the x_0 that is used."""

    @abstractmethod
    def __call__(self, x_0: Tensor) -> Tensor:
        """x_0: (B, C, H, W). Returns the same shape."""

    @abstractmethod
    def __str__(self) -> str:
        """The choice and its values, as written in a row of results."""


@dataclass(frozen=True)
class Unclipped(Clipping):
    """x_0 unchanged, exactly as in Algorithm 2."""

    def __str__(self) -> str:
        return "none"

    def __call__(self, x_0: Tensor) -> Tensor:
        return x_0


@dataclass(frozen=True)
class Static(Clipping):
    """x_0 clipped to the bounds of its space. Raises UserError if the space has none."""

    bounds: Bounds | None = field(default=(-1.0, 1.0), repr=False)

    def __post_init__(self):
        if self.bounds is None:
            raise UserError("clipping=static clips x_0 to bounds, but this space has none: set clipping=none")

    def __str__(self) -> str:
        return "static"

    def __call__(self, x_0: Tensor) -> Tensor:
        assert self.bounds is not None  # see __post_init__
        return x_0.clamp(*self.bounds)


@checked
@dataclass(frozen=True)
class Dynamic(Clipping):
    """Dynamic thresholding (Saharia et al. 2022, Imagen): each image is clipped to its percentile s of |x_0|, at
    least 1, and divided by s.

    bounds: of the space of x_0. Raises UserError unless they are [-1, 1].
    """

    percentile: PositiveFraction = 0.995
    bounds: Bounds | None = field(default=(-1.0, 1.0), repr=False)

    def __post_init__(self):
        if self.bounds != (-1.0, 1.0):
            raise UserError(
                "clipping=dynamic maps x_0 to [-1, 1], which are not the bounds of this space: set clipping=none"
            )

    def __str__(self) -> str:
        return f"dynamic(percentile={self.percentile})"

    def __call__(self, x_0: Tensor) -> Tensor:
        s = _quantile(x_0.flatten(1).abs(), self.percentile).clamp(min=1)
        s = s.reshape(-1, *[1] * (x_0.ndim - 1))
        return x_0.clamp(-s, s) / s


def _quantile(x: Tensor, q: float) -> Tensor:
    """torch.quantile of each row of x (B, n), bit for bit, also on devices without float64. Returns (B,)."""
    position = torch.tensor(q, dtype=x.dtype).item() * (x.shape[1] - 1)
    x, k = x.sort(dim=1).values, math.floor(position)
    return torch.lerp(precise(x[:, k]), precise(x[:, math.ceil(position)]), position - k).to(x)


class Clip:
    """A denoiser whose x_0 passes through `clip`; eps, v and score are derived from the result."""

    def __init__(self, denoiser: Denoise, clip: Callable[[Tensor], Tensor]):
        self.denoiser = denoiser
        self.clip = clip
        self.schedule = denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        prediction = self.denoiser(x_t, t, condition)
        return replace(prediction, x_0=self.clip(prediction.x_0))
