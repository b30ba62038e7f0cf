"""Pictures that a task is given."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffusion import images
from diffusion.data.decoding import read_image
from diffusion.errors import UserError


def read(key: str, path: str, shape: Sequence[int]) -> Tensor:
    """The picture at `path` as float32 (1, C, H, W) in [-1, 1]: resized at its short side, cropped at the centre.

    shape: (C, H, W); key: what the command line calls it. Raises UserError where it cannot be read.
    """
    channels, size, _ = shape
    picture = read_image(Path(path), size, channels)
    if isinstance(picture, str):
        raise UserError(f"{key}={path}: not a readable picture ({picture})")
    return images.from_uint8(torch.tensor(picture)).unsqueeze(0)
