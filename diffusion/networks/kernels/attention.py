"""Attention with narrow heads, whose scores stay in the cache (Dao et al. 2022, FlashAttention)."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from diffusion.networks.kernels.library import call, serves
from diffusion.networks.kernels.operators import Operator

HEAD_WIDTHS = (4, 8, 16)  # with more channels, the attention of torch is as fast


def attend(qkv: Tensor, kernels: bool) -> Tensor:
    """softmax(q^T k / sqrt(d)) v^T in each head. qkv: (B, 3, heads, d, N). Returns (B, heads, d, N)."""
    if kernels and qkv.shape[3] in HEAD_WIDTHS and serves(qkv):
        return attention(qkv)[0]
    return plain(qkv)


def plain(qkv: Tensor) -> Tensor:
    q, k, v = (x.mT.contiguous() for x in qkv.unbind(1))
    return F.scaled_dot_product_attention(q, k, v).mT


def _shapes(qkv: Tensor) -> tuple[Tensor, Tensor]:
    batch, _, heads, d, n = qkv.shape
    return qkv.new_empty(batch, heads, d, n), qkv.new_empty(batch, heads, n)


def _attention(qkv: Tensor) -> tuple[Tensor, Tensor]:
    batch, _, heads, d, n = qkv.shape
    out, log_sum = _shapes(qkv)
    call(f"attention_{d}", qkv.contiguous(), out, log_sum, batch, heads, n)
    return out, log_sum


def _backward_shape(d_out: Tensor, qkv: Tensor, out: Tensor, log_sum: Tensor) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _attention_backward(d_out: Tensor, qkv: Tensor, out: Tensor, log_sum: Tensor) -> Tensor:
    batch, _, heads, d, n = qkv.shape
    d_qkv = qkv.new_empty(qkv.shape)
    call(f"attention_backward_{d}", qkv.contiguous(), out, log_sum, d_out.contiguous(), d_qkv, batch, heads, n)
    return d_qkv


attention_backward = Operator(
    "attention_backward(Tensor d_out, Tensor qkv, Tensor out, Tensor log_sum) -> Tensor",
    _attention_backward,
    _backward_shape,
)


def _save(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, *output)


def _gradient(ctx: Any, d_out: Tensor, _: None) -> Tensor:
    return attention_backward(d_out, *ctx.saved_tensors)


attention = Operator("attention(Tensor qkv) -> (Tensor out, Tensor log_sum)", _attention, _shapes, _gradient, _save)
