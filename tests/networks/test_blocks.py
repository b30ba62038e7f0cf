"""The layers that are computed in a way of their own against the plain way."""

import pytest
import torch
from torch.nn import functional as F

from diffusion.networks import attention
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


def softmax_attention(q, k, v):
    return v @ torch.softmax(q.mT @ k * q.shape[1] ** -0.5, dim=2).mT


@pytest.mark.parametrize("scale", [1.0, 30.0])  # the latter with scores of several thousands
@pytest.mark.parametrize("in_cache", [1, 3 * 20**2, 1 << 19])  # one head at a time, three and the two left, all
def test_small_heads(monkeypatch, scale, in_cache):
    monkeypatch.setattr(attention, "_IN_CACHE", in_cache)
    q, k, v = (part.detach().requires_grad_() for part in normal(3, 5, 8, 20, scale=scale))
    same_with_gradients(attention._SmallHeads.apply, softmax_attention, q, k, v)


@pytest.mark.parametrize("head_width", [4, 32])
def test_both_ways_of_attention(head_width, monkeypatch):
    q, k, v = normal(3, 2, 3, head_width, 16).detach().float()
    used = []
    monkeypatch.setattr(
        attention._SmallHeads, "apply", lambda *x, real=attention._SmallHeads.apply: used.append(1) or real(*x)
    )
    out = attention.attend(q, k, v)
    torch.testing.assert_close(out, softmax_attention(*(x.flatten(0, 1) for x in (q, k, v))).unflatten(0, (2, 3)))
    assert len(used) == (head_width == 4)


def test_upsample():
    layer, x = Upsample(3).double(), normal(2, 3, 4, 6)

    def plain(x, weight, bias):
        return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)

    same_with_gradients(lambda x, *_: layer(x), plain, x, layer.weight, layer.bias)


def test_pointwise():
    layer, x = Pointwise(3, 5).double(), normal(2, 3, 4, 6)
    same_with_gradients(lambda x, *_: layer(x), F.conv2d, x, layer.weight, layer.bias)
