"""A data set of floats, with a number told of each image."""

import torch
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import Count, checked
from diffusion.data.base import Data, Declaration
from diffusion.ground import random


@checked
class Waves(Data):
    """Waves from left to right, in two channels, the sine and the cosine; the condition `wavelength` is in pixels.

    n: images for training; a quarter as many are for validation. size: height and width.
    """

    def __init__(self, *, n: Count = 512, size: Count = 8, **common):
        super().__init__(path=None, **common)
        self.n, self.size = n, size

    @property
    def declaration(self) -> Declaration:
        return Declaration(torch.float32, (2, self.size, self.size))

    def load(self, split: str) -> tuple[Tensor, Condition]:
        index = torch.arange(self.n if split == "train" else self.n // 4)
        wavelength = 4 + 12 * random.uniform(0, f"waves/{split}/wavelength", index).float()[:, None]
        phase = random.uniform(0, f"waves/{split}/phase", index).float()[:, None]
        angle = 2 * torch.pi * (torch.arange(self.size) / wavelength + phase)
        waves = torch.stack([angle.sin(), angle.cos()], dim=1)[:, :, None, :].expand(-1, -1, self.size, -1)
        return waves.contiguous(), Condition.of(wavelength=wavelength)
