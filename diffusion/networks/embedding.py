"""The time embedding."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoidal(t: Tensor, width: int, freq_shift: int = 1) -> Tensor:
    """Sines, then cosines, of t at width / 2 frequencies that decrease geometrically from 1 towards 1/10000.

    t: (B,), any real numbers. Returns float32 (B, width). With freq_shift = 1 (Ho et al. 2020) the last
    frequency is 1/10000; with 0 (Vaswani et al. 2017) the one after the last would be 1/10000.
    """
    half = width // 2
    k = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(k * (-math.log(10_000) / (half - freq_shift)))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """t (B,) -> (B, embedding_width): sinusoids of scale * t and a small MLP, as in Ho et al. 2020, appendix B."""

    def __init__(self, width: int, embedding_width: int, freq_shift: int, scale: float = 1.0):
        super().__init__()
        self.width = width
        self.freq_shift = freq_shift
        self.scale = scale
        self.linear_1 = nn.Linear(width, embedding_width)
        self.linear_2 = nn.Linear(embedding_width, embedding_width)

    def forward(self, t: Tensor) -> Tensor:
        sinusoids = sinusoidal(self.scale * t, self.width, self.freq_shift).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(sinusoids)))
