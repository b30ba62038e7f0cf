"""torch.compile of a network, with `compile=true`."""

import torch
from torch import nn

from diffusion.ground.errors import UserError


def compile_network(network: nn.Module, device: torch.device) -> None:
    """torch.compile of a network in place, so that its state dict keeps its names. It is compiled when it is first
    called; whether that works on `device` is found out here, with another function.

    Raises UserError where it does not.
    """
    try:
        torch.compile(lambda x: x.cos() + 1)(torch.zeros(8, device=device))
    except Exception as error:  # of the compiler, its cache or the device
        reason = next(filter(str.strip, str(error).splitlines()), type(error).__name__)
        raise UserError(f"compile=true: torch.compile does not work here ({reason}); say compile=false") from error
    network.compile()
