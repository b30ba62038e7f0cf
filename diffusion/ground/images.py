"""Conversion between [-1, 1] and uint8; grids, strips, PNG and GIF files."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from diffusion.ground.files import atomic

_VISIBLE = 56  # pixels: smaller images are enlarged by an integer factor in grids
GREY = 64  # between and around images
_FONT = ImageFont.load_default(size=14)
_LINE = 22  # pixels: the height of a line of text


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] (other values are clipped) to uint8 of the same shape."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 images to float32 in [-1, 1], the same shape; the exact inverse of `to_uint8` on its values."""
    return images.float() / 127.5 - 1


def visible(images: Tensor) -> Tensor:
    """uint8 (..., C, H, W) of any C as grey or RGB: one channel is grey, two get a black third one, of more than three
    the first three are used."""
    if images.shape[-3] == 2:
        return torch.cat([images, torch.zeros_like(images[..., :1, :, :])], dim=-3)
    return images[..., :3, :, :]


def grid(
    images: Tensor,
    columns: int | None = None,
    names: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
) -> Tensor:
    """Images side by side. images: uint8 (N, C, H, W); columns: by default about sqrt(N); names: one per row,
    written in front of it; titles: one per column, written above it. Returns uint8 (C, H', W')."""
    n, channels, height, _ = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    zoom = max(1, math.ceil(_VISIBLE / height))
    images = images.repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)
    images = F.pad(images, (1, 1, 1, 1), value=GREY)
    height, width = images.shape[2:]
    blank = images.new_full((rows * columns - n, *images.shape[1:]), GREY)
    cells = torch.cat([images, blank]).reshape(rows, columns, *images.shape[1:])
    whole = cells.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, columns * width)
    if titles is not None:
        positions = [((column + 0.5) * width, _LINE / 2) for column in range(columns)]
        whole = torch.cat([_written(titles, positions, "mm", _LINE, columns * width, channels), whole], dim=1)
    if names is not None:
        top = whole.shape[1] - rows * height
        positions = [(6, top + (row + 0.5) * height) for row in range(rows)]
        margin = math.ceil(max(map(_FONT.getlength, names))) + 12
        whole = torch.cat([_written(names, positions, "lm", whole.shape[1], margin, channels), whole], dim=2)
    return whole


def strip(states: Tensor, titles: Sequence[str] | None = None) -> Tensor:
    """Trajectories of some images: one image per row, time to the right. states: uint8 (kept, N, C, H, W); titles:
    one per state. Returns uint8 (C, H', W')."""
    return grid(states.transpose(0, 1).flatten(0, 1), columns=len(states), titles=titles)


def evenly(n: int, at_most: int) -> Tensor:
    """Up to at_most of 0..n-1, evenly spaced, always with the last: int64."""
    return torch.linspace(0, n - 1, min(n, at_most)).round().long()


def _written(
    texts: Sequence[str], positions: Sequence[tuple[float, float]], anchor: str, height: int, width: int, channels: int
) -> Tensor:
    """Texts at positions (x, y) of their `anchor` (as in Pillow), on grey: uint8 (C, H, W)."""
    canvas = Image.new("L", (width, height), GREY)
    for text, position in zip(texts, positions, strict=True):
        ImageDraw.Draw(canvas).text(position, text, fill=255, font=_FONT, anchor=anchor)
    return torch.from_numpy(np.array(canvas)).expand(channels, -1, -1)


def to_pil(image: Tensor) -> Image.Image:
    """uint8 (C, H, W), C = 1 or 3, to a PIL image."""
    array = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def write_png(path: Path | str, image: Tensor) -> Path:
    """Writes uint8 (C, H, W) as a PNG, atomically; returns the path."""
    with atomic(path) as temporary:
        to_pil(image).save(temporary, format="PNG")
    return Path(path)


def write_gif(path: Path | str, frames: Sequence[Tensor], seconds: float = 3.0) -> Path:
    """Writes uint8 (C, H, W) frames as an endless GIF of that many seconds that pauses on its last frame."""
    converted = [to_pil(frame) for frame in frames]
    each = max(20, round(1000 * seconds / len(converted)))  # browsers slow down frames under 20 ms
    with atomic(path) as temporary:
        converted[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=converted[1:],
            duration=[each] * (len(converted) - 1) + [1500],
            loop=0,
        )
    return Path(path)
