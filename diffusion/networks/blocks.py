"""The layers that the UNet is made of. Each starts as the identity on its residual branch."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.networks import native

Norm = Callable[[int], nn.Module]  # width -> a normalisation of that many channels


def zero(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters set to 0: what it feeds starts as if it were not there."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution, as one matrix product per image: on a CPU its backward pass takes a quarter of the time.

    x: (B, in_width, N); weight: (out_width, in_width); bias: (out_width,). Returns (B, out_width, N).
    """
    return torch.baddbmm(bias[:, None], weight.expand(x.shape[0], -1, -1), x)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution from in_width to out_width channels."""

    def __init__(self, in_width: int, out_width: int):
        super().__init__(in_width, out_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x.flatten(2), self.weight.flatten(1), self.bias).unflatten(2, x.shape[2:])


def norm_silu(norm: nn.Module, x: Tensor) -> Tensor:
    """silu(norm(x)) of x (B, C, H, W)."""
    if isinstance(norm, nn.GroupNorm) and native.serves(x):
        return native.NormSilu.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)
    return F.silu(norm(x))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around which the input is carried; the embedding is added between them.

    scale_shift: instead of being added, the embedding scales and shifts the second normalisation's output (Dhariwal &
    Nichol 2021, section 3.1: adaptive group normalisation). resize: without parameters, changes the resolution before
    the first convolution and of what is carried around; None keeps it.

    forward(x (B, in_width, H, W), embedding (B, embedding_width)) -> (B, out_width, H, W), H and W resized
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        embedding_width: int,
        dropout: float,
        norm: Norm,
        scale_shift: bool = False,
        resize: nn.Module | None = None,
    ):
        super().__init__()
        self.scale_shift = scale_shift
        self.resize = nn.Identity() if resize is None else resize
        self.norm_1 = norm(in_width)
        self.conv_1 = nn.Conv2d(in_width, out_width, 3, padding=1)
        self.embedding = nn.Linear(embedding_width, 2 * out_width if scale_shift else out_width)
        self.norm_2 = norm(out_width)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zero(nn.Conv2d(out_width, out_width, 3, padding=1))
        self.shortcut = nn.Identity() if in_width == out_width else Pointwise(in_width, out_width)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_1(self.resize(norm_silu(self.norm_1, x)))
        told = self.embedding(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = F.silu(self.norm_2(h) * (1 + scale) + shift)
        else:
            h = norm_silu(self.norm_2, h.add_(told))  # in place: no backward pass needs what a convolution gave
        h = self.conv_2(self.dropout(h))
        return h.add_(self.shortcut(self.resize(x)))


class Downsample(nn.Conv2d):
    """Halves the resolution by a convolution of stride 2.

    padding = 1 pads all four sides; 0 pads right and below only, which is TensorFlow's "SAME", the paper's.
    The embedding is for a residual block in this place; a convolution does not look at it.
    """

    def __init__(self, width: int, padding: int):
        super().__init__(width, width, 3, stride=2, padding=padding)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        if self.padding == (0, 0):
            x = F.pad(x, (0, 1, 0, 1))
        return super().forward(x)


# Along an axis, which of the weights (last index) fall on the first and on the second input pixel that an output at
# the place 0 or 1 (first index) sees.
_SEEN = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], device="cpu")  # whichever is the default


class Upsample(nn.Conv2d):
    """Doubles the resolution: every pixel four times, then a 3x3 convolution.

    Of the nine pixels that the convolution sees, several are copies of one. On a CPU their weights are summed instead,
    which leaves 2x2 weights for each of the four places that an output can have over its input: half of the work.
    The embedding: see `Downsample`.
    """

    def __init__(self, width: int):
        super().__init__(width, width, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        if not x.is_cpu or torch.compiler.is_compiling():
            return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        (height, width), seen = x.shape[2:], _SEEN.to(self.weight)
        weight = torch.einsum("apr, bqc, oirc -> aboipq", seen, seen, self.weight)
        h = F.conv2d(x, weight.flatten(0, 2), self.bias.repeat(4), padding=1).unflatten(1, (2, 2, -1))
        # The output at (2i + a, 2j + b) is h[:, a, b, :, i + a, j + b]: a view, which is copied once, there and back.
        batch, down, right, channel, row, column = h.stride()
        size = (len(h), h.shape[3], height, 2, width, 2)
        stride = (batch, channel, row, down + row, column, right + column)
        return h.as_strided(size, stride).flatten(4).flatten(2, 3)


class Stage(nn.Module):
    """All that happens at one resolution on one side of the U: (residual block, attention) pairs, then `resample`."""

    def __init__(self, residuals: list[nn.Module], attentions: list[nn.Module], resample: nn.Module | None):
        super().__init__()
        self.residuals = nn.ModuleList(residuals)
        self.attentions = nn.ModuleList(attentions)
        self.resample = resample


class DownStage(Stage):
    """Every result is also put on the stack `skips`, for the other side."""

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for residual, attention in zip(self.residuals, self.attentions, strict=True):
            x = attention(residual(x, embedding))
            skips.append(x)
        if self.resample is not None:
            x = self.resample(x, embedding)
            skips.append(x)
        return x


class UpStage(Stage):
    """Every residual block also sees what the other side left on top of the stack `skips`."""

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for residual, attention in zip(self.residuals, self.attentions, strict=True):
            x = attention(residual(torch.cat([x, skips.pop()], dim=1), embedding))
        return x if self.resample is None else self.resample(x, embedding)
