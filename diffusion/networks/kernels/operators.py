"""Operators of torch, which torch.compile and torch.export take as they are."""

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.autograd.function import once_differentiable

_LIBRARY = torch.library.Library("diffusion", "DEF")


def operator(schema: str, compute: Callable[..., Any], shapes: Callable[..., Any]) -> OpOverload:
    """The operator of a schema such as `name(Tensor x) -> Tensor`. shapes: empty tensors of the shapes of the result,
    in place of it."""
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, compute, "CPU")
    torch.library.register_fake(f"diffusion::{name}", shapes, lib=_LIBRARY)
    return getattr(torch.ops.diffusion, name).default


def differentiable(op: OpOverload, backward: Callable[..., Any], save: Callable[..., None]) -> None:
    """Gives an operator gradients, once. backward(ctx, *gradients of its results); save(ctx, inputs, output)."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        save(ctx, inputs, output)

    torch.library.register_autograd(op.name(), once_differentiable(backward), setup_context=setup, lib=_LIBRARY)
