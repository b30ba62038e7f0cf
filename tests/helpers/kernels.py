"""What the tests of the kernels share."""

import pytest
import torch
from torch import nn

from diffusion.networks.kernels import library
from diffusion.networks.unet import UNet

compiled = pytest.mark.skipif(library.library() is None, reason="no C++ compiler here")


def normal(*shape, scale=1.0):
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))).requires_grad_()


def same_with_gradients(kernel, reference, *inputs, tolerance=2e-6):
    """float32 values and gradients of `kernel` against those of `reference` in float64, in units of the largest."""
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    out, expected = kernel(*inputs), reference(*doubles)
    d_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(out, inputs, d_out), torch.autograd.grad(expected, doubles, d_out.double())
    for a, b in zip([out, *gradients[0]], [expected, *gradients[1]], strict=True):
        assert a.dtype == torch.float32
        assert (a - b).abs().max() <= tolerance * b.abs().max()


def network():
    """One with every kernel, without weights that are 0."""
    made = UNet(1, 1, 16, widths=(8, 16), layers=1, attention=(8,), head_width=8, norm_groups=4)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    return made


def outcome(network, by=None):
    """The output for two images, and the gradients of the parameters. by: what computes it, else the network."""
    out = (network if by is None else by)(normal(2, 1, 16, 16).detach(), torch.tensor([3.0, 700.0]))
    return [out, *torch.autograd.grad(out.square().sum(), list(network.parameters()))]


def assert_same(found, expected, tolerance=1e-5):
    """Outcomes, in units of the largest of each tensor."""
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-3)
