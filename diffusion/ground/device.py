"""The device that a command computes on."""

import torch

from diffusion.ground.errors import UserError


def device_of(accelerator: str) -> torch.device:
    """`auto`, the machine's accelerator or else its CPU, or a device by name. Raises UserError for a device that is not
    available."""
    if accelerator == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if found is None else found
    try:
        return torch.empty(0, device=accelerator).device
    except (RuntimeError, AssertionError):
        raise UserError(f"accelerator={accelerator}: no such device here; expected auto, cpu, cuda or mps") from None
