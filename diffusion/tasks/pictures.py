"""Pictures and masks that a task is given."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion import images
from diffusion.data import decoding, stored
from diffusion.data.decoding import Limits
from diffusion.errors import Notice, UserError

_LITTLE = 1 / 8  # of the values that a file could hold


def read(key: str, path: str, shape: Sequence[int], limits: Limits | None = None) -> Tensor:
    """The picture at `path` as float32 (1, C, H, W) in [-1, 1]: resized at its short side, cropped at the centre.

    key: what the command line calls it; shape: (C, H, W); limits: the values that become black and white, by default
    those of the file's type. Raises UserError where it cannot be read; warns where it comes out nearly black.
    """
    channels, size, _ = shape
    picture = decoding.read_picture(Path(path), size, channels, limits)
    if isinstance(picture, str):
        raise UserError(f"{key}={path}: not a readable picture ({picture})")
    values = picture.values
    if limits is None and (values.top or 0) > 255 and values.largest < _LITTLE * values.top:
        warnings.warn(
            f"{key}={path} holds values up to {values.largest:g} of {values.top:g}, and is read nearly black",
            Notice,
            stacklevel=3,
        )
    return images.from_uint8(torch.tensor(picture.pixels)).unsqueeze(0)


def read_mask(path: str, image: str, size: int) -> Tensor:
    """Where the mask at `path` is white, over more than half of a pixel: bool (1, 1, size, size), resized and cropped
    as the picture at `image` is. What is transparent counts as black; a mask of floats goes from 0 to 1.

    Raises UserError where one cannot be read, the mask has other proportions than its picture, or nothing in it is
    white, or everything.
    """
    mask, picture = _stored("task.mask", path), _stored("task.image", image)
    (height, width), (mask_height, mask_width) = picture.values.shape[:2], mask.values.shape[:2]
    if not _alike((width, height), (mask_width, mask_height)):
        raise UserError(
            f"task.mask={path} has {mask_width}x{mask_height} pixels and task.image={image} {width}x{height}: expected "
            "a mask of the same proportions, or the wrong pixels would be drawn; draw it on the picture, at any "
            "resolution"
        )
    grey = decoding.flatten(mask, (0, mask.top or 1), 1, background="black")
    short = min(width, height)
    left, top = (width - short) / 2 / width * mask_width, (height - short) / 2 / height * mask_height
    box = (left, top, mask_width - left, mask_height - top)
    white = np.asarray(grey.resize((size, size), Image.Resampling.BOX, box)) > 127
    if white.all() or not white.any():
        raise UserError(
            f"task.mask={path}: {_why(grey, white.all(), size)}; white pixels are drawn anew, black and transparent "
            "ones kept"
        )
    return torch.tensor(white)[None, None]


def _stored(key: str, path: str) -> stored.Stored:
    try:
        return stored.read(Path(path))
    except Exception as error:  # decoders raise whatever they like
        raise UserError(f"{key}={path}: not a readable picture ({decoding.reason(error)})") from None


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether the sides have the same proportions, up to the rounding of the smaller one to whole pixels."""
    (width, height), (large_width, large_height) = sorted([one, other], key=lambda sides: sides[0] * sides[1])
    off = large_height * width / large_width - height, large_width * height / large_height - width
    return max(map(abs, off)) < 1


def _why(grey: Image.Image, is_white: bool, size: int) -> str:
    """What is wrong with a mask that came out all white or all black."""
    lowest, highest = grey.getextrema()
    if is_white:
        lost = f": its black parts are lost in the {size}x{size} pixels at the centre" if lowest <= 127 else ""
        return f"all white, nothing is kept{lost}"
    lost = f"its white parts are lost in the {size}x{size} pixels at the centre"
    return f"all black, nothing is drawn: {lost if highest > 127 else f'its brightest value is {highest} of 255'}"
