"""Selects whether a network uses kernels."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class HasKernels(nn.Module):
    """A module that uses kernels where they apply, unless `use_kernels(network, False)` was called.

    The choice applies to a network in memory. It is not in state dicts or pickles: a copy has the default.
    """

    kernels = True

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "kernels"}


def use_kernels(network: nn.Module, on: bool) -> None:
    """on: use kernels where they apply; otherwise only torch operations."""
    for module in _with_kernels(network):
        module.kernels = on


@contextmanager
def without_kernels(network: nn.Module) -> Iterator[None]:
    """Only torch operations inside the `with` block."""
    before = [(module, module.kernels) for module in _with_kernels(network)]
    use_kernels(network, False)
    try:
        yield
    finally:
        for module, on in before:
            module.kernels = on


def _with_kernels(network: nn.Module) -> Iterator[HasKernels]:
    return (module for module in network.modules() if isinstance(module, HasKernels))
