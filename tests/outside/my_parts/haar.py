"""A space: one level of the Haar transform, as toy latents."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.config.value_types import checked
from diffusion.ground import images
from diffusion.ground.errors import UserError
from diffusion.process import gaussian_log_likelihood
from diffusion.spaces.base import Space

# Of the pixels of a square: their sum, and three differences. Orthonormal, and its own inverse.
HAAR = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2


@checked
@dataclass(frozen=True)
class Haar(Space):
    """8-bit pictures (C, H, W) are x_0 (4 C, H / 2, W / 2)."""

    stores = "uint8 in 0..255"
    holds_pictures = True

    def __post_init__(self):
        super().__post_init__()
        if self.shape[1] % 2 or self.shape[2] % 2:
            raise UserError(f"space=haar takes pictures of even sides, not of {self.shape[1]}x{self.shape[2]}")

    @property
    def x_0_shape(self) -> tuple[int, ...]:
        channels, height, width = self.shape
        return 4 * channels, height // 2, width // 2

    @property
    def log_unit(self) -> Tensor:
        return torch.full((self.x_0_shape[0], 1, 1), math.log(127.5), dtype=torch.float64)

    def takes(self, dtype: torch.dtype) -> bool:
        return dtype == torch.uint8

    def encode(self, stored: Tensor) -> Tensor:
        return _mixed(F.pixel_unshuffle(images.from_uint8(stored), 2))

    def decode(self, x_0: Tensor) -> Tensor:
        return images.to_uint8(F.pixel_shuffle(_mixed(x_0), 2))

    def picture(self, x_0: Tensor) -> Tensor:
        return images.visible(self.decode(x_0))

    def log_likelihood(self, x_0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return gaussian_log_likelihood(x_0, mean, std)


def _mixed(x: Tensor) -> Tensor:
    return torch.einsum("ij,...cjhw->...cihw", HAAR.to(x), x.unflatten(-3, (-1, 4))).flatten(-4, -3)
