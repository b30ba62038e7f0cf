"""Registration of torch operators that torch.compile and torch.export do not trace."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LIBRARY = torch.library.Library("diffusion", "DEF")


class Operator:
    """torch.ops.diffusion.NAME, for tensors on a CPU.

    schema: `NAME(Tensor x) -> Tensor`, as in torch.library.
    compute: the inputs -> the result. shapes: the inputs -> empty tensors of the result's shapes.
    gradients(ctx, *gradients of the result), save(ctx, inputs, output): the `backward` and `setup_context` of a
    torch.autograd.Function. None: an operator without gradients.
    """

    def __init__(
        self,
        schema: str,
        compute: Callable[..., Any],
        shapes: Callable[..., Any],
        gradients: Callable[..., Any] | None = None,
        save: Callable[..., None] | None = None,
    ):
        name = schema.partition("(")[0]
        _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, compute, "CPU")
        torch.library.register_fake(f"diffusion::{name}", shapes, lib=_LIBRARY)
        self.registered = getattr(torch.ops.diffusion, name).default
        self._compute = compute
        if gradients is not None and save is not None:
            backward = once_differentiable(gradients)
            torch.library.register_autograd(self.registered.name(), backward, setup_context=save, lib=_LIBRARY)
            self._compute = _function(compute, backward, save).apply

    def __call__(self, *inputs: Any) -> Any:
        if torch.compiler.is_compiling() or type(inputs[0]) is not Tensor:
            return self.registered(*inputs)
        return self._compute(*inputs)  # bypasses the dispatcher, which costs a small network a tenth of its speed


def _function(
    compute: Callable[..., Any], backward: Callable[..., Any], save: Callable[..., None]
) -> type[torch.autograd.Function]:
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = compute(*inputs)
            save(ctx, inputs, output)
            return output

    Function.backward = staticmethod(backward)
    return Function
