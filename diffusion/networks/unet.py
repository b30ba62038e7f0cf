"""The UNet of Ho et al. 2020, whose modules map one to one onto those of diffusers' `UNet2DModel`."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.errors import UserError
from diffusion.networks.attention import Attention
from diffusion.networks.blocks import Downsample, DownStage, ResidualBlock, Upsample, UpStage, zero
from diffusion.networks.embedding import LabelEmbedding, TimeEmbedding


class UNet(nn.Module):
    """Residual blocks down to half, quarter, ... resolution and up again; both sides joined at every layer.

    The defaults are the paper's CIFAR-10 network (without its dropout of 0.1).

    Args:
        in_channels, out_channels, size: of the images; they are square.
        widths: channels at each resolution, from the full one down; as many as there are levels.
        layers: residual blocks per level on the way down; there is one more on the way up.
        attention: the resolutions (in pixels, after `patch`) at which attention follows each residual block.
        mid_attention: whether there is attention in the middle, at the lowest resolution.
        head_width: channels of an attention head; None is one head.
        dropout: probability, inside the residual blocks.
        patch: p x p pixels become the channels of one on the way in, and the other way round on the way out.
        num_classes: of the labels y, if the network is to be told them; None ignores y.
        norm_groups, norm_eps: of all group normalisations.
        freq_shift: see `sinusoidal`.
        downsample_padding: see `Downsample`.
    Raises: UserError where the sizes do not fit each other.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        widths: Sequence[int] = (128, 256, 256, 256),
        layers: int = 2,
        attention: Sequence[int] = (16,),
        mid_attention: bool = True,
        head_width: int | None = None,
        dropout: float = 0.0,
        patch: int = 1,
        num_classes: int | None = None,
        norm_groups: int = 32,
        norm_eps: float = 1e-6,
        freq_shift: int = 1,
        downsample_padding: int = 0,
    ):
        widths, attention = list(widths), list(attention)
        resolutions = check_sizes(size, widths, attention, mid_attention, head_width, patch, norm_groups)
        super().__init__()
        self.patch = patch
        embedding_width = 4 * widths[0]
        norm = partial(nn.GroupNorm, norm_groups, eps=norm_eps)
        residual = partial(ResidualBlock, embedding_width=embedding_width, dropout=dropout, norm=norm)

        def attend(width: int, present: bool) -> nn.Module:
            return Attention(width, head_width=head_width or width, norm=norm) if present else nn.Identity()

        def stage(kind: type, in_widths: list[int], level: int, resample: nn.Module | None) -> nn.Module:
            width, present = widths[level], resolutions[level] in attention
            residuals = [residual(in_width, width) for in_width in in_widths]
            return kind(residuals, [attend(width, present) for _ in in_widths], resample)

        self.time_embedding = TimeEmbedding(widths[0], embedding_width, freq_shift)
        self.label_embedding = None if num_classes is None else LabelEmbedding(num_classes, embedding_width)
        self.conv_in = nn.Conv2d(in_channels * patch**2, widths[0], 3, padding=1)

        x, skips = widths[0], [widths[0]]  # the widths of what `forward` calls so
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            last = level == len(widths) - 1
            resample = None if last else Downsample(width, downsample_padding)
            self.down.append(stage(DownStage, [x] + [width] * (layers - 1), level, resample))
            x = width
            skips += [width] * (layers if last else layers + 1)

        self.middle = nn.ModuleList([residual(x, x), attend(x, mid_attention), residual(x, x)])

        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            in_widths = [above + skips.pop() for above in [x] + [width] * layers]
            self.up.append(stage(UpStage, in_widths, level, Upsample(width) if level > 0 else None))
            x = width

        self.norm_out = norm(x)
        self.conv_out = zero(nn.Conv2d(x, out_channels * patch**2, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """x: (B, in_channels, size, size). t: (B,), the paper's t minus 1. y: int64 (B,) labels, -1 or None where
        there is none. Returns (B, out_channels, size, size)."""
        embedding = self._embed(t, y)
        x = self.conv_in(F.pixel_unshuffle(x, self.patch))
        skips = [x]
        for stage in self.down:
            x = stage(x, embedding, skips)
        first, attention, second = self.middle
        x = second(attention(first(x, embedding)), embedding)
        for stage in self.up:
            x = stage(x, embedding, skips)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.patch)

    def _embed(self, t: Tensor, y: Tensor | None) -> Tensor:
        """(B, embedding_width); the SiLU that each residual block begins with is done here, once for all."""
        embedding = self.time_embedding(t)
        if self.label_embedding is not None:
            y = torch.full_like(t, -1, dtype=torch.int64) if y is None else y
            embedding = embedding + self.label_embedding(y)
        return F.silu(embedding)


def check_sizes(
    size: int,
    widths: list[int],
    attention: list[int],
    mid_attention: bool,
    head_width: int | None,
    patch: int,
    norm_groups: int,
) -> list[int]:
    """The resolution of each level of a `UNet` with these arguments; UserError, with the fix, where there is none."""
    levels = len(widths)
    factor = patch * 2 ** (levels - 1)
    if size % factor:
        raise UserError(_does_not_divide(size, levels, patch))
    resolutions = [size // (patch * 2**level) for level in range(levels)]

    if missing := sorted(set(attention) - set(resolutions)):
        raise UserError(
            f"attention at {missing} is impossible: at size {size} the network's levels have the resolutions "
            f"{resolutions}; choose network.attention among them"
        )
    if widths[0] % 2:
        raise UserError(f"the first width, {widths[0]}, is odd: choose an even one, half for sines, half for cosines")
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
    return resolutions


def _does_not_divide(size: int, levels: int, patch: int) -> str:
    factor = patch * 2 ** (levels - 1)
    fits = [n for n in range(1, levels) if size % (patch * 2 ** (n - 1)) == 0]
    padded = -(-size // factor) * factor
    shape = f"{levels} levels" + (f", patch {patch}" if patch > 1 else "")
    fix = f"use dataset.size={padded}, which pads"
    if fits:
        n = "1 level" if fits[-1] == 1 else f"{fits[-1]} levels"
        fix += f", or a network with at most {n} (fewer network.widths)"
    return f"{size} does not divide by {factor} ({shape}): {fix}"
