"""Reads the pictures, arrays and masks of tasks."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion.data import decoding, raw_image
from diffusion.data.decoding import Limits
from diffusion.data.lazy_rows import Rows, opened
from diffusion.ground.errors import Notice, UserError
from diffusion.spaces.base import Space

_LITTLE = 1 / 8  # of the values that a file could hold


def read(key: str, path: str | Path, space: Space, limits: Limits | None = None) -> Tensor:
    """x_0 in `space`, float32 (1, C, H, W), from a file: a picture, resized and cropped at the centre; for a space that
    does not hold pictures a .npy file with stored values of shape (C, H, W).

    key: its name on the command line; limits: the values that map to black and white in a picture, by default those of
    the file type. Raises UserError for an unreadable file; warns about a picture that is read nearly black.
    """
    if not space.holds_pictures:
        return space.encode(_array(key, path, space)).unsqueeze(0)
    channels, height, width = space.shape
    picture = decoding.read_picture(Path(path), (height, width), channels, limits)
    if isinstance(picture, str):
        raise UserError(f"{key}={path}: not a readable picture ({picture})")
    values = picture.values
    top = values.top or 0
    if limits is None and top > 255 and values.largest < _LITTLE * top:
        warnings.warn(
            f"{key}={path} holds values up to {values.largest:g} of {values.top:g}, and is read nearly black",
            Notice,
            stacklevel=3,
        )
    return space.encode(torch.tensor(picture.pixels)).unsqueeze(0)


def _array(key: str, path: str | Path, space: Space) -> Tensor:
    wanted = f"expected an array of shape {space.shape} in the data's units, a .npy file"
    name = f"{key}={path}"
    if Path(path).suffix != ".npy":
        raise UserError(f"{name}: {wanted}")
    found = opened(Path(path), name)
    if found.shape != space.shape or not np.isfinite(found).all():
        raise UserError(f"{name} has the shape {found.shape}, or numbers that are not finite: {wanted}")
    x = Rows(found[None])[:][0]
    if not space.takes(x.dtype):
        raise UserError(f"{name} holds {x.dtype}: expected {space.stores}")
    return x


def read_mask(path: str | Path, image: str | Path, space: Space) -> Tensor:
    """True where the mask at `path` is white, over more than half of a pixel: bool (1, 1, H, W), resized and cropped
    like the picture at `image`. Transparent pixels count as black; a mask of floats has the range 0 to 1.

    Raises UserError for an unreadable file, a mask whose proportions differ from the picture's, and a mask that is all
    white or all black.
    """
    _, rows, columns = space.x_0_shape
    mask, size = _stored("task.mask", path), (rows, columns)
    of_image = _stored("task.image", image).values.shape[:2] if space.holds_pictures else size
    (height, width), (mask_height, mask_width) = of_image, mask.values.shape[:2]
    if not _alike((width, height), (mask_width, mask_height)):
        raise UserError(
            f"task.mask={path} has {mask_width}x{mask_height} pixels and task.image={image} {width}x{height}: expected "
            "a mask of the same proportions, at any resolution; otherwise the wrong pixels would be drawn"
        )
    grey = decoding.flatten(mask, (0, mask.top or 1), 1, background="black")
    shown = min(height / size[0], width / size[1])  # pixels of the picture in one of x_0
    left = (width - shown * size[1]) / 2 / width * mask_width
    top = (height - shown * size[0]) / 2 / height * mask_height
    box = (left, top, mask_width - left, mask_height - top)
    white = np.asarray(grey.resize((columns, rows), Image.Resampling.BOX, box)) > 127
    if white.all() or not white.any():
        raise UserError(
            f"task.mask={path}: {_why(grey, bool(white.all()), size)}; white pixels are redrawn, black and "
            "transparent ones kept"
        )
    return torch.tensor(white)[None, None]


def _stored(key: str, path: str | Path) -> raw_image.Stored:
    try:
        return raw_image.read(Path(path))
    except Exception as error:  # decoders raise arbitrary exceptions
        raise UserError(f"{key}={path}: not a readable picture ({decoding.reason(error)})") from None


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether the sides have the same proportions, up to the rounding of the smaller one to whole pixels."""
    (width, height), (large_width, large_height) = sorted([one, other], key=lambda sides: sides[0] * sides[1])
    off = large_height * width / large_width - height, large_width * height / large_height - width
    return max(map(abs, off)) < 1


def _why(grey: Image.Image, is_white: bool, size: Sequence[int]) -> str:
    """Why a mask is invalid that is all white or all black after resizing."""
    values = np.asarray(grey)
    lowest, highest = values.min(), values.max()
    pixels = "x".join(map(str, size[::-1]))
    if is_white:
        lost = f": its black parts are lost in the {pixels} pixels at the centre" if lowest <= 127 else ""
        return f"all white, nothing is kept{lost}"
    lost = f"its white parts are lost in the {pixels} pixels at the centre"
    return f"all black, nothing is drawn: {lost if highest > 127 else f'its brightest value is {highest} of 255'}"
