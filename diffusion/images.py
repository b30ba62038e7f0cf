"""The one place for [-1, 1] <-> uint8, and for grids, strips, PNG and GIF files."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from diffusion.files import atomic

_VISIBLE = 56  # pixels: smaller images are enlarged by a whole factor in grids, to be seen at all


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] (what lies outside is clipped) to uint8 of the same shape."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 images to float32 in [-1, 1], the same shape; the exact inverse of `to_uint8` on its values."""
    return images.float() / 127.5 - 1


def grid(images: Tensor, columns: int | None = None, names: Sequence[str] | None = None) -> Tensor:
    """Images side by side. images: uint8 (N, C, H, W); columns: by default about sqrt(N); names: one for each row,
    written in front of it. Returns uint8 (C, H', W')."""
    n, channels, height, _ = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    zoom = max(1, math.ceil(_VISIBLE / height))
    images = images.repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)
    images = F.pad(images, (1, 1, 1, 1), value=64)
    blank = images.new_full((rows * columns - n, *images.shape[1:]), 64)
    cells = torch.cat([images, blank]).reshape(rows, columns, *images.shape[1:])
    whole = cells.permute(2, 0, 3, 1, 4).reshape(channels, rows * images.shape[2], columns * images.shape[3])
    return whole if names is None else torch.cat([_margin(names, images.shape[2], channels), whole], dim=2)


def _margin(names: Sequence[str], height: int, channels: int) -> Tensor:
    """Names below each other, each in the middle of `height` pixels: uint8 (C, H', W')."""
    font = ImageFont.load_default(size=14)
    width = math.ceil(max(font.getlength(name) for name in names)) + 12
    margin = Image.new("L", (width, height * len(names)), 64)
    for row, name in enumerate(names):
        ImageDraw.Draw(margin).text((6, (row + 0.5) * height), name, fill=255, font=font, anchor="lm")
    return torch.from_numpy(np.array(margin)).expand(channels, -1, -1)


def to_pil(image: Tensor) -> Image.Image:
    """uint8 (C, H, W), C = 1 or 3, to a PIL image."""
    array = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def write_png(path: Path | str, image: Tensor) -> Path:
    """Writes uint8 (C, H, W) as a PNG, whole or not at all; returns the path."""
    with atomic(path) as temporary:
        to_pil(image).save(temporary, format="PNG")
    return Path(path)


def write_gif(path: Path | str, frames: Sequence[Tensor], seconds: float = 3.0) -> Path:
    """Writes uint8 (C, H, W) frames as an endless GIF of that many seconds that rests on its last frame."""
    pictures = [to_pil(frame) for frame in frames]
    each = max(20, round(1000 * seconds / len(pictures)))  # browsers slow down what is under 20 ms
    with atomic(path) as temporary:
        pictures[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=[each] * (len(pictures) - 1) + [1500],
            loop=0,
        )
    return Path(path)
