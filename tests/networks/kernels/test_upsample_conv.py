"""The convolution after upsampling against its reference implementation."""

import pytest
import torch
from torch.nn import functional as F

from diffusion.networks.kernels import upsample_conv
from tests.helpers.kernels import normal, same_with_gradients


def kernel(x, weight, bias):
    return upsample_conv.upsample_conv(x, weight, bias, kernels=True)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 6), (7, 7)])
def test_values_and_gradients(size):
    same_with_gradients(kernel, upsample_conv.plain, normal(2, 3, *size), normal(5, 3, 3, 3), normal(5))


def test_any_layout_in_memory():
    x = normal(2, 8, 4, 6).detach().to(memory_format=torch.channels_last).requires_grad_()
    same_with_gradients(kernel, upsample_conv.plain, x, normal(5, 8, 3, 3), normal(5))


def test_it_computes_less(monkeypatch):
    """Only a kernel has four times as many channels out, at the smaller size."""
    shapes, conv2d = [], F.conv2d
    monkeypatch.setattr(
        F, "conv2d", lambda x, w, *args, **kwargs: shapes.append(w.shape) or conv2d(x, w, *args, **kwargs)
    )
    x, weight, bias = normal(2, 3, 4, 6), normal(5, 3, 3, 3), normal(5)
    kernel(x, weight, bias)
    upsample_conv.upsample_conv(x, weight, bias, kernels=False)
    assert shapes == [(20, 3, 2, 2), (5, 3, 3, 3)]


@pytest.mark.parametrize("size", [(1, 1), (4, 6)])
def test_the_operators_are_sound(size):
    x, weight, bias = normal(2, 3, *size), normal(20, 3, 2, 2), normal(20)
    torch.library.opcheck(upsample_conv.phase_conv.registered, (x, weight, bias))
    x, weight, bias = x.detach(), weight.detach(), bias.detach()
    d_out = upsample_conv.phase_conv(x, weight, bias) + 1
    torch.library.opcheck(upsample_conv.phase_conv_backward.registered, (d_out, x, weight))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_in_another_precision_it_is_plain(dtype):
    x, weight, bias = (each.detach().to(dtype) for each in (normal(2, 3, 4, 6), normal(5, 3, 3, 3), normal(5)))
    assert torch.equal(kernel(x, weight, bias), upsample_conv.plain(x, weight, bias))


def test_under_autocast_it_is_plain():
    x, weight, bias = normal(2, 3, 4, 6), normal(5, 3, 3, 3), normal(5)
    with torch.autocast("cpu", torch.bfloat16):
        out, expected = kernel(x, weight, bias), upsample_conv.plain(x, weight, bias)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected)
