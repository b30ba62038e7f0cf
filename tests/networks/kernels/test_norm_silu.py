"""Group normalisation and SiLU in one kernel against its reference implementation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffusion.networks.kernels import norm_silu
from tests.helpers.kernels import compiled, normal, same_with_gradients

pytestmark = compiled


def kernel(x, scale, bias):
    return norm_silu.group_norm_silu(x, scale, bias, 4, 1e-5)[0]


def reference(x, scale, bias):
    return norm_silu.plain(lambda x: F.group_norm(x, 4, scale, bias, 1e-5), x)


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 16)])
@pytest.mark.parametrize("shift", [0.0, 30.0])  # of the bias: SiLU at both ends
def test_values_and_gradients(size, shift):
    x, scale, bias = normal(3, 12, *size), normal(12), (normal(12).detach() * shift).requires_grad_()
    same_with_gradients(kernel, reference, x, scale, bias, tolerance=1e-5)


def test_any_layout_in_memory():
    x = normal(3, 12, 5, 7)
    same_with_gradients(lambda x, *_: kernel(x.mT, *_), lambda x, *_: reference(x.mT, *_), x, normal(12), normal(12))


def test_not_a_number_stays_one_in_its_group():
    x = normal(2, 8, 5, 5).detach()
    x[1, 0, 0, 0] = float("nan")
    activated = norm_silu.norm_silu(nn.GroupNorm(1, 8), x, kernels=True)
    assert activated[1].isnan().all()
    assert activated[0].isfinite().all()


def test_the_operators_are_sound():
    x, scale, bias = normal(3, 12, 5, 7), normal(12), normal(12)
    torch.library.opcheck(norm_silu.group_norm_silu.registered, (x, scale, bias, 4, 1e-5))
    x, scale, bias = (each.detach() for each in (x, scale, bias))
    out, *saved = norm_silu.group_norm_silu(x, scale, bias, 4, 1e-5)
    torch.library.opcheck(norm_silu.group_norm_silu_backward.registered, (out + 1, x, scale, bias, *saved, 4))


def test_another_norm_is_computed_plainly():
    x, norm = normal(3, 12, 5, 7), nn.InstanceNorm2d(12)
    assert torch.equal(norm_silu.norm_silu(norm, x, kernels=True), F.silu(norm(x)))
