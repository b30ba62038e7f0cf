"""Self-conditioning: the x_0 predicted one step before is an input of the network (Chen et al. 2022)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.conditioners.base import CHANNELS, Conditioner, Opened


@dataclass(frozen=True)
class Previous(Conditioner):
    """The previous x_0 as additional channels, 0 if absent. drop: the share of images without one
    in training; for them the network is called once, for the others twice."""

    yields: ClassVar[str] = CHANNELS
    drop: float = 0.5

    def module(self, width: int, channels: int) -> "PreviousChannels":
        return PreviousChannels(channels)


class PreviousChannels(Opened):
    """rows: x_0 (B, C, H, W) -> the same, 0 where absent."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, rows: Tensor, absent: Tensor | None) -> Tensor:
        return rows if absent is None else torch.where(absent[:, None, None, None], 0, rows)

    def blank(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)
