"""A 3x3 convolution after doubling the resolution, with half of the operations.

Several of the nine input pixels of the convolution are copies of the same pixel. Their weights are summed, which leaves
2x2 weights for each of the four positions (phases) of an output relative to its input. It consists of torch operations.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.networks.kernels.library import is_float32
from diffusion.networks.kernels.operators import Operator

# Along an axis: which of the weights (last index) apply to the first or second input pixel (middle index) of an output
# with phase 0 or 1 (first index).
_SEEN = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], device="cpu")  # for any default device


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor, kernels: bool) -> Tensor:
    """Repeats each pixel of x (B, in_width, H, W) 2x2, then convolves with weight (out_width, in_width, 3, 3). Returns
    (B, out_width, 2H, 2W)."""
    if kernels and is_float32(x) and not torch.is_autocast_enabled("cpu"):
        phases = torch.einsum("apr, bqc, oirc -> aboipq", _SEEN, _SEEN, weight)
        return phase_conv(x, phases.flatten(0, 2), bias.repeat(4))
    return plain(x, weight, bias)


def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)


def _shape(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    return x.new_empty(batch, weight.shape[0] // 4, 2 * height, 2 * width)


def _phase_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    h = F.conv2d(x, weight, bias, padding=1)
    return _interleaved(h).flatten(4).flatten(2, 3).contiguous()


def _interleaved(h: Tensor) -> Tensor:
    """A view (B, out_width, H, 2, W, 2) of h (B, 4 out_width, H + 1, W + 1): the output at (2i + a, 2j + b) is
    h[:, a, b, :, i + a, j + b]."""
    h = h.unflatten(1, (2, 2, -1))
    batch, down, right, channel, row, column = h.stride()
    size = len(h), h.shape[3], h.shape[4] - 1, 2, h.shape[5] - 1, 2
    return h.as_strided(size, (batch, channel, row, down + row, column, right + column))


def _backward_shapes(d_out: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape[0])


def _phase_conv_backward(d_out: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, height, width = x.shape
    d_h = x.new_zeros(batch, weight.shape[0], height + 1, width + 1)
    _interleaved(d_h).copy_(d_out.unflatten(3, (width, 2)).unflatten(2, (height, 2)))
    once, padding = [1, 1], [1, 1]
    gradients = torch.ops.aten.convolution_backward(
        d_h, x, weight, [weight.shape[0]], once, padding, once, False, [0, 0], 1, [True, True, True]
    )
    return tuple(gradient.contiguous() for gradient in gradients)


phase_conv_backward = Operator(
    "phase_conv_backward(Tensor d_out, Tensor x, Tensor weight) -> (Tensor d_x, Tensor d_weight, Tensor d_bias)",
    _phase_conv_backward,
    _backward_shapes,
)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _gradients(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return phase_conv_backward(d_out, *ctx.saved_tensors)


phase_conv = Operator(
    "phase_conv(Tensor x, Tensor weight, Tensor bias) -> Tensor", _phase_conv, _shape, _gradients, _save
)
