"""What a run has saved."""

import torch


def contents(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
