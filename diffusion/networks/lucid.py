"""The UNet of lucidrains' denoising-diffusion-pytorch 2, for networks trained with it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.conditioners.base import CHANNELS, Conditioner, Conditioners
from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import Count, Fraction, checked
from diffusion.ground.errors import UserError
from diffusion.networks.embedding import sinusoidal
from diffusion.networks.sides import both_sides, size_text

MEMORY = 4  # learned tokens of every attention, in addition to those of the image


class RMSNorm(nn.Module):
    """The channels of each pixel, divided by their root mean square (Zhang & Sennrich 2019), times a learned weight."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * (len(self.weight) ** 0.5 * self.weight[:, None, None])


class ResidualBlock(nn.Module):
    """Convolution, normalisation, SiLU, twice; the embedding scales and shifts the output of the first normalisation.

    forward(x (B, in_width, H, W), embedding (B, embedding_width)) -> (B, out_width, H, W)
    """

    def __init__(self, in_width: int, out_width: int, *, embedding_width: int, dropout: float):
        super().__init__()
        self.embedding = nn.Linear(embedding_width, 2 * out_width)
        self.conv_1 = nn.Conv2d(in_width, out_width, 3, padding=1)
        self.norm_1 = RMSNorm(out_width)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = nn.Conv2d(out_width, out_width, 3, padding=1)
        self.norm_2 = RMSNorm(out_width)
        self.shortcut = nn.Identity() if in_width == out_width else nn.Conv2d(in_width, out_width, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.embedding(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.dropout(F.silu(self.norm_1(self.conv_1(x)) * (1 + scale) + shift))
        return F.silu(self.norm_2(self.conv_2(h))) + self.shortcut(x)


class Attention(nn.Module):
    """Attention of every pixel to all pixels and to MEMORY learned tokens, with a residual."""

    def __init__(self, width: int, *, heads: int, head_width: int):
        super().__init__()
        self.norm = RMSNorm(width)
        self.memory = nn.Parameter(torch.randn(2, heads, MEMORY, head_width))  # keys, values
        self.qkv = nn.Conv2d(width, 3 * heads * head_width, 1, bias=False)
        self.out = nn.Conv2d(heads * head_width, width, 1)
        self.norm_out = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        _, heads, _, head_width = self.memory.shape
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, heads, head_width))
        q, k, v = qkv.transpose(3, 4).unbind(1)  # (B, heads, H W, head_width)
        k, v = (
            torch.cat([learned.expand(len(x), -1, -1, -1), seen], dim=2)
            for learned, seen in zip(self.memory, (k, v), strict=True)
        )
        h = self.attend(q, k, v).transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:])
        return x + self.norm_out(self.out(h))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q: (B, heads, H W, head_width); k, v: with MEMORY more tokens. Returns a tensor of the shape of q."""
        return F.scaled_dot_product_attention(q, k, v)


class LinearAttention(Attention):
    """Attention with a cost linear in the number of pixels: the keys are summed before the queries are applied (Shen
    et al. 2018, efficient attention)."""

    def __init__(self, width: int, *, heads: int, head_width: int):
        super().__init__(width, heads=heads, head_width=head_width)
        self.norm_out = RMSNorm(width)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        context = k.softmax(dim=2).transpose(2, 3) @ v  # (B, heads, head_width, head_width)
        return (q.softmax(dim=3) * q.shape[3] ** -0.5) @ context


class Level(nn.Module):
    """Two residual blocks, attention after the second, and a layer that resamples."""

    def __init__(self, first: nn.Module, second: nn.Module, attention: nn.Module, resample: nn.Module):
        super().__init__()
        self.first, self.second, self.attention, self.resample = first, second, attention, resample


@checked
class LucidUNet(nn.Module):
    """Residual blocks and attention at every resolution; linear attention if `full_attention` is false.

    Args:
        in_channels, out_channels, size: of the images; size is the side of a square, or (H, W).
        width: channels of the stem; a quarter of the embedding width.
        multiples: output channels of each level, as multiples of `width`; one per level.
        full_attention: for each level, whether its attention is between all pixels.
        heads, head_width: of every attention.
        dropout: probability, inside the residual blocks.
        conditioners: the conditioners by name; they may only yield channels.
    Raises: UserError if the sizes are inconsistent.
    """

    takes: ClassVar[tuple[str, ...]] = (CHANNELS,)

    def __init__(
        self,
        in_channels: Count,
        out_channels: Count,
        size: Count | Sequence[Count],
        width: Count = 64,
        multiples: Sequence[Count] = (1, 2, 4, 8),
        full_attention: Sequence[bool] = (False, False, False, True),
        heads: Count = 4,
        head_width: Count = 32,
        dropout: Fraction = 0.0,
        conditioners: Mapping[str, Conditioner] | None = None,
    ):
        _check(size, width, multiples, full_attention)
        super().__init__()
        self.width = width
        residual = partial(ResidualBlock, embedding_width=4 * width, dropout=dropout)
        attentions = [Attention if full else LinearAttention for full in full_attention]
        attend = {"heads": heads, "head_width": head_width}
        widths = [width, *(width * multiple for multiple in multiples)]
        levels = range(len(multiples))

        self.linear_1 = nn.Linear(width, 4 * width)
        self.linear_2 = nn.Linear(4 * width, 4 * width)
        self.conditioners = Conditioners(conditioners or {}, self.takes, 4 * width, in_channels)
        self.conv_in = nn.Conv2d(in_channels + self.conditioners.channels, width, 7, padding=3)
        self.down = nn.ModuleList()
        for level in levels:
            x, below = widths[level], widths[level + 1]
            halve = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * x, below, 1))
            resample = halve if level < levels[-1] else nn.Conv2d(x, below, 3, padding=1)
            self.down.append(Level(residual(x, x), residual(x, x), attentions[level](x, **attend), resample))
        x = widths[-1]
        self.middle = nn.ModuleList([residual(x, x), Attention(x, **attend), residual(x, x)])
        self.up = nn.ModuleList()
        for level in reversed(levels):
            above, x = widths[level], widths[level + 1]
            resample = nn.Conv2d(x, above, 3, padding=1)
            if level > 0:
                resample = nn.Sequential(nn.Upsample(scale_factor=2.0, mode="nearest"), resample)
            both = x + above
            self.up.append(Level(residual(both, x), residual(both, x), attentions[level](x, **attend), resample))
        self.last = residual(2 * width, width)
        self.conv_out = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """x: (B, in_channels, H, W). t: (B,), the result of `Parametrization.clock`. condition: of B images, None for
        an empty one. Returns (B, out_channels, H, W)."""
        given = self.conditioners(condition, x)
        x = x if given.channels is None else torch.cat([x, given.channels], dim=1)
        sinusoids = sinusoidal(t, self.width).to(self.linear_1.weight.dtype)
        embedding = F.silu(self.linear_2(F.gelu(self.linear_1(sinusoids))))
        x = self.conv_in(x)
        skips = [x]
        for level in _levels(self.down):
            x = level.first(x, embedding)
            skips.append(x)
            x = level.attention(level.second(x, embedding))
            skips.append(x)
            x = level.resample(x)
        first, attention, second = self.middle
        x = second(attention(first(x, embedding)), embedding)
        for level in _levels(self.up):
            x = level.first(torch.cat([x, skips.pop()], dim=1), embedding)
            x = level.attention(level.second(torch.cat([x, skips.pop()], dim=1), embedding))
            x = level.resample(x)
        return self.conv_out(self.last(torch.cat([x, skips.pop()], dim=1), embedding))


def _levels(modules: nn.ModuleList) -> Iterator[Level]:
    for level in modules:
        assert isinstance(level, Level)
        yield level


def _check(size: int | Sequence[int], width: int, multiples: Sequence[int], full_attention: Sequence[bool]) -> None:
    factor, sides = 2 ** (len(multiples) - 1), both_sides(size)
    if any(side % factor for side in sides):
        padded = f"dataset.size={-(-sides[0] // factor) * factor}, which pads, or " * (sides[0] == sides[1])
        raise UserError(
            f"{size_text(sides)} does not divide by {factor} ({len(multiples)} levels): use {padded}fewer "
            "network.multiples"
        )
    if len(full_attention) != len(multiples):
        raise UserError(
            f"network.full_attention={list(full_attention)}: expected one value per level ({len(multiples)} levels)"
        )
    if width % 2:
        raise UserError(f"network.width={width}: expected an even number, half for sines, half for cosines")
