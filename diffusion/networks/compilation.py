"""torch.compile of a network, with `compile=true`."""

import torch
from torch import nn

from diffusion.ground.errors import UserError


def compile_network(network: nn.Module, device: torch.device) -> None:
    """Compiles a network in place, so that its state dict keeps its names. Compilation happens on the first call; a
    test function checks here whether it works on `device`.

    Raises UserError if it does not.
    """
    try:
        torch.compile(lambda x: x.cos() + 1)(torch.zeros(8, device=device))
    except Exception as error:  # of the compiler, its cache or the device
        reason = next(filter(str.strip, str(error).splitlines()), type(error).__name__)
        raise UserError(f"compile=true: torch.compile does not work here ({reason}); set compile=false") from error
    network.compile()
