"""8-bit images: 0..255 <-> [-1, 1]."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.config.value_types import checked
from diffusion.ground import images
from diffusion.process import discretized_log_likelihood
from diffusion.spaces.base import Space


@checked
@dataclass(frozen=True)
class Pixels(Space):
    """Maps uint8 in 0..255 to x_0 in [-1, 1]; `decode` rounds, and is the exact inverse of `encode`."""

    bounds = (-1.0, 1.0)
    stores = "uint8 in 0..255, which become [-1, 1]"
    discrete = True

    def takes(self, dtype: torch.dtype) -> bool:
        return dtype == torch.uint8

    def encode(self, stored: Tensor) -> Tensor:
        return images.from_uint8(stored)

    def decode(self, x_0: Tensor) -> Tensor:
        return images.to_uint8(x_0)

    def picture(self, x_0: Tensor) -> Tensor:
        return images.visible(images.to_uint8(x_0))

    def log_likelihood(self, x_0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return discretized_log_likelihood(x_0, mean, std)

    @property
    def holds_pictures(self) -> bool:
        return self.shape[0] in (1, 3)
