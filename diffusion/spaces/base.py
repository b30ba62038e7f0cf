"""What lies between the values that a dataset stores and x_0, which the model sees."""

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
    """Between which values x_0 lies; None where it may be any number."""
    stores: ClassVar[str]
    """A description of what the dataset has to store."""
    discrete: ClassVar[bool] = False
    """Whether `log_likelihood` is that of a value among finitely many, or a density."""

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
        """x_0 for the eye: uint8 (..., C', H, W), C' = 1 or 3, see `images.visible`."""

    @abstractmethod
    def log_likelihood(self, x_0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """log of what the decoder N(mean, std^2) of x_0 gives to each of its values, in nats; arguments that
        broadcast."""

    @property
    def log_unit(self) -> Tensor:
        """log of a stored value's change where x_0 changes by 1, (C, 1, 1), float64: by so much, in nats, is the log of
        a density lower for stored values than for x_0. 0 where `discrete`."""
        return torch.zeros(self.x_0_shape[0], 1, 1, dtype=torch.float64)

    @property
    def holds_pictures(self) -> bool:
        """Whether `picture` loses nothing, so that a PNG holds what is stored."""
        return False

    @property
    def clip(self) -> Static | Unclipped:
        """The clipping of x_0 that brings it nearer to the data, whatever they are: to the bounds."""
        return Unclipped() if self.bounds is None else Static(self.bounds)

    def settled(self, load: Callable[[], Any]) -> Mapping[str, Any]:
        """The fields that the training split itself decides, where they are not set yet, in plain numbers.

        load: gives its stored values, a tensor (N, C, H, W) or what is indexed like one.
        """
        return {}
