"""Base class of spaces, the maps between the stored values of a dataset and x_0 of the model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusion.clipping import Bounds, Static, Unclipped
from diffusion.config.value_types import Count


@dataclass(frozen=True)
class Space(ABC):
    """A pair of maps between stored values and x_0, both (..., C, H, W), whose shapes may differ.

    shape: (C, H, W) of one stored value.
    """

    shape: Sequence[Count]

    bounds: ClassVar[Bounds | None] = None
    """The range of x_0; None if it is unbounded."""
    stores: ClassVar[str]
    """A description of the values that the dataset has to store."""
    discrete: ClassVar[bool] = False
    """Whether `log_likelihood` is a log-probability of discrete values; otherwise it is a log-density."""

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(self.shape))

    @property
    def x_0_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one x_0."""
        return tuple(self.shape)

    @abstractmethod
    def takes(self, dtype: torch.dtype) -> bool:
        """Whether stored values may be of this type."""

    @abstractmethod
    def encode(self, stored: Tensor) -> Tensor:
        """x_0, float32, of stored values; on their device."""

    @abstractmethod
    def decode(self, x_0: Tensor) -> Tensor:
        """The stored values of x_0; the inverse of `encode`."""

    @abstractmethod
    def picture(self, x_0: Tensor) -> Tensor:
        """x_0 as an image for display: uint8 (..., C', H, W), C' = 1 or 3, see `images.visible`."""

    @abstractmethod
    def log_likelihood(self, x_0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """log-likelihood of each value of x_0 under the decoder N(mean, std^2), in nats; arguments that broadcast."""

    @property
    def log_unit(self) -> Tensor:
        """log of the change of a stored value per unit of x_0, (C, 1, 1), float64: by this amount, in nats, the
        log-density of stored values is lower than that of x_0. 0 if `discrete`."""
        return torch.zeros(self.x_0_shape[0], 1, 1, dtype=torch.float64)

    @property
    def holds_pictures(self) -> bool:
        """Whether `picture` is lossless, so that a PNG contains the stored values."""
        return False

    @property
    def clip(self) -> Static | Unclipped:
        """The clipping of x_0 to the bounds, which reduces the distance to any data."""
        return Unclipped() if self.bounds is None else Static(self.bounds)

    def settled(self, load: Callable[[], Any]) -> Mapping[str, Any]:
        """The fields that are computed from the training split and not set yet, as plain numbers.

        load: returns its stored values, a tensor (N, C, H, W) or an object indexed like one.
        """
        return {}
