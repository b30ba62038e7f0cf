"""Which layers have kernels, and whether a network uses them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class HasKernels(nn.Module):
    """A module that computes with kernels where they serve, or, after `use_kernels(network, False)`, without.

    The choice belongs to a network in memory. It is in no state dict and no pickle: a copy has the default again.
    """

    kernels = True

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "kernels"}


def use_kernels(network: nn.Module, on: bool) -> None:
    """on: kernels where they serve; otherwise torch's operations alone."""
    for module in _with_kernels(network):
        module.kernels = on


@contextmanager
def without_kernels(network: nn.Module) -> Iterator[None]:
    """torch's operations alone, until the end of the `with`."""
    before = [(module, module.kernels) for module in _with_kernels(network)]
    use_kernels(network, False)
    try:
        yield
    finally:
        for module, on in before:
            module.kernels = on


def _with_kernels(network: nn.Module) -> Iterator[HasKernels]:
    return (module for module in network.modules() if isinstance(module, HasKernels))
