"""Image files -> uint8 arrays of one size."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from diffusion.data import raw_image
from diffusion.data.raw_image import Stored

BACKGROUND = "white"  # behind transparent pixels
VERSION = 2  # to be raised with every change of this file or raw_image.py that changes pixels: it invalidates the cache

# A large JPEG is read at the smallest scale at which it is still this many times larger than requested. Pixels of
# photographs then differ by at most 1 of 255 from those of the whole image (with a factor of 2: by 3). Strong colours
# with sharp edges, stored at half the resolution, differ by up to 6 in 1 % of the pixels, with any margin.
_SCALE_MARGIN = 4

Limits = tuple[float, float]
"""The values that become black and white; values outside are clipped."""


class Values(NamedTuple):
    """The values in a file: least and largest from Stored.extremes, top as in Stored."""

    least: float
    largest: float
    top: float | None


class Picture(NamedTuple):
    """pixels: uint8 (C, H, W), made from `values`."""

    pixels: np.ndarray
    values: Values


def read_image(path: Path, size: int, channels: int, limits: Limits | None = None) -> np.ndarray | str:
    """The pixels of `read_picture`, or the reason why the file cannot be read."""
    found = read_picture(path, size, channels, limits)
    return found if isinstance(found, str) else found.pixels


def read_picture(path: Path, size: int | tuple[int, int], channels: int, limits: Limits | None = None) -> Picture | str:
    """The (first) image of a file, resized and centre-cropped to `size`, the side of a square or (H, W) in pixels,
    grey (channels=1) or RGB (3), or the reason why it cannot be read. The default limits are 0 and the largest value of
    the file's type.
    """
    height, width = (size, size) if isinstance(size, int) else size
    try:
        found = raw_image.read(path, _SCALE_MARGIN * max(height, width))
        values = Values(*found.extremes(), found.top)
        flat = flatten(found, limits or _limits_of_type(values), channels)
        pixels = np.asarray(ImageOps.fit(flat, (width, height), Image.Resampling.BICUBIC))
    except Exception as error:  # decoders may raise any exception on broken files
        return reason(error)
    return Picture(pixels.reshape(height, width, channels).transpose(2, 0, 1), values)


def read_values(path: Path) -> Values | str:
    """The values of the whole image that `read_picture` would report, or the reason why the file cannot be read."""
    try:
        found = raw_image.read(path)
        return Values(*found.extremes(), found.top)
    except Exception as error:
        return reason(error)


def flatten(found: Stored, limits: Limits, channels: int, background: str = BACKGROUND) -> Image.Image:
    """The whole image in 8 bits, grey (channels=1) or RGB (3), with transparency composited over the background."""
    levels, mode = _levels(found, limits), "L" if channels == 1 else "RGB"
    image = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    if found.alpha is not None:
        image = image.convert("RGB")
        image.putalpha(Image.fromarray(found.alpha))
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _limits_of_type(values: Values) -> Limits:
    least, largest, top = values
    if top is None or least < 0 or largest > top:
        raise ValueError(f"values {least:g} to {largest:g} have no known range: set dataset.range=auto or [low,high]")
    return 0, top


def _levels(found: Stored, limits: Limits) -> np.ndarray:
    """uint8, of the same shape as the values."""
    values = found.values
    if limits == (0, 255) and values.dtype == np.uint8:
        levels = values
    elif values.dtype in (np.uint8, np.uint16):  # a lookup table is faster than arithmetic on each pixel
        levels = _stretch(np.arange(np.iinfo(values.dtype).max + 1), limits)[values]
    else:
        levels = _stretch(values, limits)
    return 255 - levels if found.white_is_zero else levels


def _stretch(values: np.ndarray, limits: Limits) -> np.ndarray:
    low, high = limits
    return (((values.astype(np.float64) - low) / (high - low)).clip(0, 1) * 255).round().astype(np.uint8)


def reason(error: Exception) -> str:
    """Why a file cannot be read."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
