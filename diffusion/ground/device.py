"""The device that a command computes on."""

import torch

from diffusion.ground.errors import UserError


def device_of(accelerator: str) -> torch.device:
    """`auto`, the machine's accelerator or else its CPU, or a device by name. Raises UserError where there is none."""
    if accelerator == "auto":
        return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    try:
        return torch.empty(0, device=accelerator).device
    except (RuntimeError, AssertionError):
        raise UserError(f"accelerator={accelerator}: no such device here; expected auto, cpu, cuda or mps") from None
