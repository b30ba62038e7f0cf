"""The UNet of Ho et al. 2020. Its modules map one to one to those of diffusers' `UNet2DModel`."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.conditioners.base import CHANNELS, EMBEDDING, Conditioner, Conditioners
from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import Count, Fraction, Natural, Positive, checked
from diffusion.ground.errors import UserError
from diffusion.networks.attention import Attention
from diffusion.networks.blocks import Downsample, DownStage, ResidualBlock, Upsample, UpStage, zero
from diffusion.networks.embedding import TimeEmbedding
from diffusion.networks.kernels.choice import HasKernels
from diffusion.networks.kernels.norm_silu import norm_silu
from diffusion.networks.sides import both_sides, size_text


@checked
class UNet(HasKernels):
    """Residual blocks down to half, quarter, ... resolution and up again, with skip connections at every layer.

    The defaults are the CIFAR-10 network of the paper (without its dropout of 0.1).

    Args:
        in_channels, out_channels, size: of the images; size is the side of a square, or (H, W).
        widths: channels at each resolution, from the full one down; one per level.
        layers: residual blocks per level in the down path; the up path has one more.
        attention: the resolutions (in pixels of the shorter side, after `patch`) at which attention follows each
            residual block.
        mid_attention: whether there is attention in the middle, at the lowest resolution.
        head_width: channels of an attention head; None is one head.
        heads: number of heads of every attention, instead of head_width.
        dropout: probability, inside the residual blocks.
        patch: p x p pixels become the channels of one pixel at the input, and the reverse at the output.
        conditioners: the conditioners by name.
        norm_groups, norm_eps: of all group normalisations.
        freq_shift: see `sinusoidal`.
        time_scale: factor of t before the embedding.
        time_width: number of sinusoids of t, a quarter of the embedding width; None is the first of the widths.
        downsample_padding: see `Downsample`.
        scale_shift: how residual blocks receive the embedding, see `ResidualBlock`.
        residual_resampling: residual blocks change the resolution instead of convolutions, as in BigGAN.
    Raises: UserError if the sizes are inconsistent.
    """

    takes: ClassVar[tuple[str, ...]] = (EMBEDDING, CHANNELS)

    def __init__(
        self,
        in_channels: Count,
        out_channels: Count,
        size: Count | Sequence[Count],
        widths: Sequence[Count] = (128, 256, 256, 256),
        layers: Count = 2,
        attention: Sequence[Count] = (16,),
        mid_attention: bool = True,
        head_width: Count | None = None,
        heads: Count | None = None,
        dropout: Fraction = 0.0,
        patch: Count = 1,
        conditioners: Mapping[str, Conditioner] | None = None,
        norm_groups: Count = 32,
        norm_eps: Positive = 1e-6,
        freq_shift: Natural = 1,
        downsample_padding: Natural = 0,
        scale_shift: bool = False,
        residual_resampling: bool = False,
        time_scale: float = 1.0,
        time_width: Count | None = None,
    ):
        widths, attention = list(widths), list(attention)
        time_width = time_width or widths[0]
        resolutions = check_sizes(
            size, widths, attention, mid_attention, head_width, heads, patch, norm_groups, time_width
        )
        super().__init__()
        self.patch = patch
        embedding_width = 4 * time_width
        norm = partial(nn.GroupNorm, norm_groups, eps=norm_eps)
        residual = partial(
            ResidualBlock, embedding_width=embedding_width, dropout=dropout, norm=norm, scale_shift=scale_shift
        )

        def attend(width: int, present: bool) -> nn.Module:
            wide = width // heads if heads else head_width or width
            return Attention(width, head_width=wide, norm=norm) if present else nn.Identity()

        def downsample(width: int) -> nn.Module:
            if residual_resampling:
                return residual(width, width, resize=nn.AvgPool2d(2))
            return Downsample(width, downsample_padding)

        def upsample(width: int) -> nn.Module:
            if residual_resampling:
                return residual(width, width, resize=nn.Upsample(scale_factor=2.0, mode="nearest"))
            return Upsample(width)

        def stage(kind: type, in_widths: list[int], level: int, resample: nn.Module | None) -> nn.Module:
            width, present = widths[level], resolutions[level] in attention
            residuals = [residual(in_width, width) for in_width in in_widths]
            return kind(residuals, [attend(width, present) for _ in in_widths], resample)

        self.time_embedding = TimeEmbedding(time_width, embedding_width, freq_shift, time_scale)
        self.conditioners = Conditioners(conditioners or {}, self.takes, embedding_width, in_channels)
        self.conv_in = nn.Conv2d((in_channels + self.conditioners.channels) * patch**2, widths[0], 3, padding=1)

        x, skips = widths[0], [widths[0]]  # the widths of `x` and `skips` in `forward`
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            last = level == len(widths) - 1
            resample = None if last else downsample(width)
            self.down.append(stage(DownStage, [x] + [width] * (layers - 1), level, resample))
            x = width
            skips += [width] * (layers if last else layers + 1)

        self.middle = nn.ModuleList([residual(x, x), attend(x, mid_attention), residual(x, x)])

        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            in_widths = [above + skips.pop() for above in [x] + [width] * layers]
            self.up.append(stage(UpStage, in_widths, level, upsample(width) if level > 0 else None))
            x = width

        self.norm_out = norm(x)
        self.conv_out = zero(nn.Conv2d(x, out_channels * patch**2, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """x: (B, in_channels, H, W). t: (B,), the result of `Parametrization.clock`. condition: of B images, None for
        an empty one. Returns (B, out_channels, H, W)."""
        given = self.conditioners(condition, x)
        embedding = self._embed(t, given.embedding)
        x = x if given.channels is None else torch.cat([x, given.channels], dim=1)
        x = self.conv_in(F.pixel_unshuffle(x, self.patch))
        skips = [x]
        for stage in self.down:
            x = stage(x, embedding, skips)
        first, attention, second = self.middle
        x = second(attention(first(x, embedding)), embedding)
        for stage in self.up:
            x = stage(x, embedding, skips)
        return F.pixel_shuffle(self.conv_out(norm_silu(self.norm_out, x, self.kernels)), self.patch)

    def _embed(self, t: Tensor, given: Tensor | None) -> Tensor:
        """(B, embedding_width). The first SiLU of the embedding in every residual block is applied here, once."""
        embedding = self.time_embedding(t)
        return F.silu(embedding if given is None else embedding + given)


def check_sizes(
    size: int | Sequence[int],
    widths: list[int],
    attention: list[int],
    mid_attention: bool,
    head_width: int | None,
    heads: int | None,
    patch: int,
    norm_groups: int,
    time_width: int,
) -> list[int]:
    """The resolution of each level of a `UNet` with these arguments, in pixels of the shorter side. Raises UserError,
    with a fix, if the arguments are inconsistent."""
    levels = len(widths)
    sides = both_sides(size)
    if any(side % (patch * 2 ** (levels - 1)) for side in sides):
        raise UserError(_does_not_divide(sides, levels, patch))
    resolutions = [min(sides) // (patch * 2**level) for level in range(levels)]

    if missing := sorted(set(attention) - set(resolutions)):
        raise UserError(
            f"attention at {missing} is impossible: at size {size_text(sides)} the network's levels have the "
            f"resolutions {resolutions}; choose network.attention among them"
        )
    if time_width % 2:
        raise UserError(
            f"the number of sinusoids of t (network.time_width, or the first width) is {time_width}, which is odd: "
            "choose an even number, half for sines, half for cosines"
        )
    if heads and head_width:
        raise UserError(f"network.heads={heads} and network.head_width={head_width}: set one of them to null")
    for width in widths:
        if width % norm_groups:
            raise UserError(
                f"a width of {width} does not divide into {norm_groups} groups: choose network.widths as multiples "
                f"of {norm_groups}, or network.norm_groups as a divisor of all widths {widths}"
            )
    attended = [width for width, resolution in zip(widths, resolutions, strict=True) if resolution in attention]
    for width in attended + widths[-1:] * mid_attention:
        if head_width and width % head_width:
            raise UserError(
                f"a width of {width} does not divide into attention heads of {head_width} channels: choose "
                f"network.head_width as a divisor of {width}, or network.head_width=null for one head"
            )
        if heads and width % heads:
            raise UserError(f"a width of {width} does not divide into network.heads={heads}: choose a divisor of it")
    return resolutions


def _does_not_divide(sides: tuple[int, int], levels: int, patch: int) -> str:
    factor = patch * 2 ** (levels - 1)
    fits = [n for n in range(1, levels) if not any(side % (patch * 2 ** (n - 1)) for side in sides)]
    shape = f"{levels} levels" + (f", patch {patch}" if patch > 1 else "")
    fixes = []
    if sides[0] == sides[1]:
        fixes.append(f"use dataset.size={-(-sides[0] // factor) * factor}, which pads")
    if fits:
        n = "1 level" if fits[-1] == 1 else f"{fits[-1]} levels"
        fixes.append(f"{'' if fixes else 'use '}a network with at most {n} (fewer network.widths)")
    if not fixes:
        fixes.append("pad the data, or use a smaller network.patch")
    return f"{size_text(sides)} does not divide by {factor} ({shape}): {', or '.join(fixes)}"
