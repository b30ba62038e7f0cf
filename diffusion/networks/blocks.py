"""The layers of the UNet. Residual layers are initialised to the identity."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.networks.kernels.choice import HasKernels
from diffusion.networks.kernels.norm_silu import norm_silu
from diffusion.networks.kernels.upsample_conv import upsample_conv

Norm = Callable[[int], nn.Module]  # width -> a normalisation of that many channels


def zero(layer: nn.Module) -> nn.Module:
    """The layer with all parameters set to 0, so that its output is initially 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution as one matrix product per image: on a CPU its backward pass takes a quarter of the time.

    x: (B, in_width, N); weight: (out_width, in_width); bias: (out_width,). Returns (B, out_width, N).
    """
    return torch.baddbmm(bias[:, None], weight.expand(x.shape[0], -1, -1), x)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution from in_width to out_width channels."""

    bias: nn.Parameter

    def __init__(self, in_width: int, out_width: int):
        super().__init__(in_width, out_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x.flatten(2), self.weight.flatten(1), self.bias).unflatten(2, x.shape[2:])


class ResidualBlock(HasKernels):
    """Two 3x3 convolutions with a residual connection; the embedding is added between them.

    scale_shift: instead of being added, the embedding scales and shifts the output of the second normalisation
    (Dhariwal & Nichol 2021, section 3.1: adaptive group normalisation). resize: a module without parameters that
    changes the resolution before the first convolution and in the residual connection; None keeps it.

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
        h = self.conv_1(self.resize(norm_silu(self.norm_1, x, self.kernels)))
        projected = self.embedding(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = projected.chunk(2, dim=1)
            h = F.silu(self.norm_2(h) * (1 + scale) + shift)
        else:
            h = h.add_(projected)  # in place: no backward pass needs the output of a convolution
            h = norm_silu(self.norm_2, h, self.kernels)
        h = self.conv_2(self.dropout(h))
        return h.add_(self.shortcut(self.resize(x)))


class Downsample(nn.Conv2d):
    """Halves the resolution by a convolution of stride 2.

    padding = 1 pads all four sides; 0 pads only right and below, which is TensorFlow's "SAME", used in the paper.
    `forward` ignores the embedding, which a residual block in its place would use.
    """

    def __init__(self, width: int, padding: int):
        super().__init__(width, width, 3, stride=2, padding=padding)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        if self.padding == (0, 0):
            x = F.pad(x, (0, 1, 0, 1))
        return super().forward(x)


class Upsample(HasKernels, nn.Conv2d):
    """Doubles the resolution: each pixel is repeated 2x2, then a 3x3 convolution. The embedding: see `Downsample`."""

    bias: nn.Parameter

    def __init__(self, width: int):
        super().__init__(width, width, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        return upsample_conv(x, self.weight, self.bias, self.kernels)


class Stage(nn.Module):
    """The layers of one resolution on one side of the U: (residual block, attention) pairs, then `resample`."""

    def __init__(self, residuals: list[nn.Module], attentions: list[nn.Module], resample: nn.Module | None):
        super().__init__()
        self.residuals = nn.ModuleList(residuals)
        self.attentions = nn.ModuleList(attentions)
        self.resample = resample


class DownStage(Stage):
    """Also pushes each result onto the stack `skips`, for the up path."""

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for residual, attention in zip(self.residuals, self.attentions, strict=True):
            x = attention(residual(x, embedding))
            skips.append(x)
        if self.resample is not None:
            x = self.resample(x, embedding)
            skips.append(x)
        return x


class UpStage(Stage):
    """Concatenates to the input of each residual block the top of the stack `skips` from the down path."""

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for residual, attention in zip(self.residuals, self.attentions, strict=True):
            x = attention(residual(torch.cat([x, skips.pop()], dim=1), embedding))
        return x if self.resample is None else self.resample(x, embedding)
