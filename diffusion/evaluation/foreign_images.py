"""Images of other programs: a folder of files, or a npz."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion.data import decoding, raw_image
from diffusion.data.listing import listing
from diffusion.ground.bar import Bar
from diffusion.ground.errors import UserError, reading


def read(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The images of a folder, in the order of their names, or of a npz (arr_0, uint8 (n, H, W, C)), as uint8
    (n, C, H, W).

    shape: the required (C, H, W), that of the dataset. Raises UserError for a missing path, a folder without images,
    an unreadable image, or one of another size or number of channels.
    """
    if path.is_dir():
        return _folder(path, shape)
    if path.suffix == ".npz" and path.is_file():
        return _npz(path, shape)
    raise UserError(f"images={path}: no such folder or .npz file")


def _folder(path: Path, shape: tuple[int, ...]) -> Tensor:
    files = listing(path).pictures
    if not files:
        raise UserError(f"images={path}: no images in this folder")
    found = torch.empty(len(files), *shape, dtype=torch.uint8)
    with Bar(total=len(files), desc="reading", unit=" images") as bar:
        for row, file in zip(found, files, strict=True):
            row.copy_(_image(path / file, shape))
            bar.update()
    return found


def _image(path: Path, shape: tuple[int, ...]) -> Tensor:
    channels, height, width = shape
    try:
        found = raw_image.read(path)
    except Exception as error:  # decoders raise any exception
        raise UserError(f"{path}: not a readable image ({decoding.reason(error)})") from None
    if found.values.dtype != np.uint8 or found.alpha is not None:
        raise UserError(f"{path}: expected 8 bits per channel, without transparency")
    values = 255 - found.values if found.white_is_zero else found.values
    pixels = torch.from_numpy(np.atleast_3d(values)).permute(2, 0, 1)
    if pixels.shape[0] == 3 and channels == 1 and bool((pixels == pixels[:1]).all()):
        pixels = pixels[:1]  # grey, stored as RGB
    if pixels.shape[0] == 1 and channels == 3:
        pixels = pixels.expand(3, -1, -1)
    _check(path, tuple(pixels.shape), (channels, height, width))
    return pixels


def _npz(path: Path, shape: tuple[int, ...]) -> Tensor:
    with reading(path, "a npz file with arr_0, uint8 (n, H, W, C)"), np.load(path, allow_pickle=False) as found:
        array = np.asarray(found["arr_0"])
        if array.dtype != np.uint8 or array.ndim != 4 or len(array) == 0:
            raise ValueError(f"{array.dtype} {array.shape}")
    pixels = torch.from_numpy(array).permute(0, 3, 1, 2)
    _check(path, tuple(pixels.shape[1:]), shape)
    return pixels


def _check(path: Path, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(found) != tuple(expected):
        (channels, height, width), (c, h, w) = found, expected
        raise UserError(
            f"{path} has {width}x{height} pixels of {channels} channels; the dataset has {w}x{h} of {c}: resize the "
            "images, or set dataset.size and dataset.channels"
        )
