"""Attention in narrow heads against its reference implementation and the closed form."""

import pytest
import torch

from diffusion.networks.kernels import attention
from diffusion.networks.kernels.attention import HEAD_WIDTHS, attend
from tests.helpers.kernels import compiled, normal, same_with_gradients

pytestmark = compiled


def kernel(qkv):
    return attend(qkv, kernels=True)


def closed_form(qkv):
    q, k, v = qkv.unbind(1)
    return v @ torch.softmax(q.mT @ k * q.shape[2] ** -0.5, dim=3).mT


@pytest.mark.parametrize("exact", [closed_form, attention.plain])
@pytest.mark.parametrize("d", HEAD_WIDTHS)
@pytest.mark.parametrize("n", [1, 16, 49, 64])  # below, at and between multiples of the lanes
def test_values_and_gradients(d, n, exact):
    same_with_gradients(kernel, exact, normal(2, 3, 5, d, n))


def test_scores_of_thousands():
    qkv = normal(2, 3, 5, 8, 20, scale=30.0)
    assert (qkv[:, 0].mT @ qkv[:, 1]).abs().max() > 3000
    same_with_gradients(kernel, closed_form, qkv, tolerance=2e-4)


def test_any_layout_in_memory():
    same_with_gradients(lambda x: kernel(x.mT), lambda x: closed_form(x.mT), normal(2, 3, 5, 20, 8))


def test_not_a_number_stays_one():
    qkv = normal(1, 3, 1, 8, 20).detach()
    qkv[..., 3] = float("nan")
    assert kernel(qkv).isnan().all()


@pytest.mark.parametrize("d", HEAD_WIDTHS)
def test_the_operators_are_sound(d):
    qkv = normal(2, 3, 5, d, 9)
    torch.library.opcheck(attention.attention.registered, (qkv,))
    found = [x.detach() for x in attention.attention(qkv)]
    torch.library.opcheck(attention.attention_backward.registered, (found[0] + 1, qkv.detach(), *found))


def test_other_widths_are_computed_plainly():
    qkv = normal(2, 3, 5, 6, 9)
    assert torch.equal(kernel(qkv), attention.plain(qkv))
