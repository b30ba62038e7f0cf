"""The layers that are computed in a way of their own against the plain way."""

import torch
from torch.nn import functional as F

from diffusion.networks.blocks import Pointwise, Upsample


def same_with_gradients(ours, plain, *inputs):
    """Values and gradients of both, in float64."""
    ours_out, plain_out = ours(*inputs), plain(*inputs)
    torch.testing.assert_close(ours_out, plain_out)
    d_out = torch.randn(plain_out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for a, b in zip(*(torch.autograd.grad(out, inputs, d_out) for out in (ours_out, plain_out)), strict=True):
        torch.testing.assert_close(a, b)


def normal(*shape, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return (scale * torch.randn(shape, dtype=torch.float64, generator=generator)).requires_grad_()


def test_upsample():
    layer, x = Upsample(3).double(), normal(2, 3, 4, 6)

    def plain(x, weight, bias):
        return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)

    same_with_gradients(lambda x, *_: layer(x), plain, x, layer.weight, layer.bias)


def test_pointwise():
    layer, x = Pointwise(3, 5).double(), normal(2, 3, 4, 6)
    same_with_gradients(lambda x, *_: layer(x), F.conv2d, x, layer.weight, layer.bias)
