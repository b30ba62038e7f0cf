"""Group normalisation and SiLU in one pass, which keeps only the input for the backward pass."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.networks.kernels.library import call, serves
from diffusion.networks.kernels.operators import Operator


def norm_silu(norm: nn.Module, x: Tensor, kernels: bool) -> Tensor:
    """silu(norm(x)) of x (B, C, H, W)."""
    if kernels and isinstance(norm, nn.GroupNorm) and serves(x):
        return group_norm_silu(x, norm.weight, norm.bias, norm.num_groups, norm.eps)[0]
    return plain(norm, x)


def plain(norm: nn.Module, x: Tensor) -> Tensor:
    return F.silu(norm(x))


def _shapes(x: Tensor, scale: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0], groups), x.new_empty(x.shape[0], groups)


def _group_norm_silu(x: Tensor, scale: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    out, mean, inverse = _shapes(x, scale, bias, groups, eps)
    call("norm_silu", x.contiguous(), scale, bias, out, mean, inverse, eps, *_sizes(x, groups))
    return out, mean, inverse


def _sizes(x: Tensor, groups: int) -> tuple[int, int, int, int]:
    return len(x), groups, x.shape[1] // groups, x.shape[2:].numel()


def _backward_shapes(
    d_out: Tensor, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), scale.new_empty(scale.shape), bias.new_empty(bias.shape)


def _group_norm_silu_backward(
    d_out: Tensor, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    d_x, (d_scale, d_bias) = x.new_empty(x.shape), x.new_empty(2, *x.shape[:2])
    saved = x.contiguous(), scale, bias, mean, inverse
    call("norm_silu_backward", *saved, d_out.contiguous(), d_x, d_scale, d_bias, *_sizes(x, groups))
    return d_x, d_scale.sum(0), d_bias.sum(0)


group_norm_silu_backward = Operator(
    "group_norm_silu_backward(Tensor d_out, Tensor x, Tensor scale, Tensor bias, Tensor mean, Tensor inverse, "
    "int groups) -> (Tensor d_x, Tensor d_scale, Tensor d_bias)",
    _group_norm_silu_backward,
    _backward_shapes,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, scale, bias, ctx.groups, _ = inputs
    _, mean, inverse = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, scale, bias, mean, inverse)


def _gradients(ctx: Any, d_out: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    return *group_norm_silu_backward(d_out, *ctx.saved_tensors, ctx.groups), None, None


group_norm_silu = Operator(
    "group_norm_silu(Tensor x, Tensor scale, Tensor bias, int groups, float eps) -> "
    "(Tensor out, Tensor mean, Tensor inverse)",
    _group_norm_silu,
    _shapes,
    _gradients,
    _save,
)
