"""Reads the stored values of an image file, before they are mapped to black and white."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

from diffusion.data.formats import opened

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_SIGNED = 2
_SIGNED_16 = {_BITS: (16,), _PHOTOMETRIC: 1, _SAMPLE_FORMAT: (_SIGNED,)}  # the format of a FITS file, as TIFF tags
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
_LARGE = 2_000_000  # pixels; smaller images are decoded in hundredths of a second


@dataclass
class Stored:
    """The (first) image of a file.

    values:        (H, W, 1) grey or (H, W, 3) RGB, of any numeric type.
    top:           the largest value of the file's type, where 0 is black; None for floats, whose range is unknown.
                   Types of fewer than 8 bits count as 8, and 32-bit integers as 16.
    alpha:         uint8 (H, W), 0 is transparent; None if nothing is transparent.
    white_is_zero: the smallest value is white and the largest black.
    """

    values: np.ndarray
    top: float | None = 255
    alpha: np.ndarray | None = None
    white_is_zero: bool = False

    def extremes(self) -> tuple[float, float]:
        """The smallest and the largest value that is not transparent; (inf, -inf) if all are transparent."""
        seen = self.values if self.alpha is None else self.values[self.alpha > 0]
        return (float(seen.min()), float(seen.max())) if seen.size else (np.inf, -np.inf)


def read(path: Path, least: int | None = None) -> Stored:
    """Raises any exception of Pillow for a broken file, and OSError or ValueError for an unsupported one.

    least: a large JPEG is read at a reduced scale, which is much faster, with at least this many pixels per side.
    """
    with opened(path) as image:
        most = Image.MAX_IMAGE_PIXELS
        if most is not None and image.width * image.height > most:
            raise ValueError(f"{image.width}x{image.height} is more than {most:,} pixels")
        _fix_byte_order(image)
        rawmode, tags = _rawmode(image), getattr(image, "tag_v2", {})
        if image.format == "FITS" and image.mode.startswith("I;16"):
            tags = _SIGNED_16
        if least and image.width * image.height > _LARGE:
            _reduce(image, least)
        if _is_deep_colour(image, rawmode, tags):
            return _deep_colour(path, image, rawmode)
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return _deep_grey(image, tags)
        return _eight_bits(image, rawmode, tags)


def _fix_byte_order(image: ImageFile.ImageFile) -> None:
    """Prevents Pillow from swapping the bytes of compressed values that its TIFF library has already swapped."""
    image.tile = [
        tile._replace(args=(_NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:]))
        if tile.codec_name == "libtiff" and isinstance(tile.args, tuple)
        else tile
        for tile in image.tile
    ]


def _reduce(image: Image.Image, least: int) -> None:
    """Makes Pillow decode a JPEG at the smallest scale with `least` pixels per side and without a partial pixel at the
    edge, which would shift the others. Other formats are unchanged."""
    width, height = image.size
    for scale in 8, 4, 2:
        if min(width, height) >= scale * least and width % scale == height % scale == 0:
            image.draft(None, (width // scale, height // scale))
            return


def _deep_grey(image: Image.Image, tags: Mapping[int, Any]) -> Stored:
    values = np.asarray(image)[..., None]
    values = values.astype(values.dtype.newbyteorder("="))
    if image.mode == "F":
        if not np.isfinite(values).all():
            raise ValueError("holds values that are infinite or not a number")
        return Stored(values, None, white_is_zero=_white_is_zero(tags))
    bits = _bits(tags)
    if values.dtype == np.uint16 and _signed(tags):
        values = values.view(np.int16)
    elif bits == 32 and not _signed(tags):
        values = values.view(np.uint32)
    top = 2 ** (bits - _signed(tags)) - 1 if bits in (12, 16) else 65535
    return Stored(values, top, _keyed(values, image), _white_is_zero(tags))


def _eight_bits(image: Image.Image, rawmode: str, tags: Mapping[int, Any]) -> Stored:
    if image.mode == "La":
        image = image.convert("LA")  # Pillow offers no direct conversion
    transparent = image.info.get("transparency")
    if image.mode == "L" and isinstance(transparent, int) and rawmode in ("L;2", "L;4"):
        image.info["transparency"] = transparent * (85 if rawmode == "L;2" else 17)  # scaled like the pixels
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return Stored(rgba[..., : 1 if grey else 3], alpha=rgba[..., 3])
    mode = "L" if grey else "RGB"
    image = image if image.mode == mode else image.convert(mode)  # avoids one more copy
    values = np.asarray(image).reshape(image.height, image.width, -1)
    if grey and _signed(tags):
        return Stored(values.view(np.int8), 127)
    if grey and _white_is_zero(tags):
        return Stored(255 - values, white_is_zero=True)  # Pillow inverts only these
    return Stored(values)


def _is_deep_colour(image: Image.Image, rawmode: str, tags: Mapping[int, Any]) -> bool:
    """Whether Pillow keeps only 8 of the 16 bits of each value; for other modes, such as CMYK, 8 bits are enough."""
    deep = ";16" in rawmode if image.format == "PNG" else _bits(tags) == 16
    return deep and image.mode in ("RGB", "RGBA")


def _deep_colour(path: Path, image: Image.Image, rawmode: str) -> Stored:
    """Reads the file twice: Pillow keeps the upper byte of each value, or the lower one in the other byte order."""
    order = "L" if sys.byteorder == "little" else "B"
    if rawmode.endswith(("L", "B")) and ";16" in rawmode:
        order = rawmode[-1]
    elif image.format == "TIFF" and ";16" not in rawmode:  # planes, of which Pillow would read two values as one
        order = "L" if getattr(image, "tag_v2").prefix == b"II" else "B"  # noqa: B009 (of TIFF files alone)
    high = low = _bytes(path, order)
    if rawmode.partition(";")[0] in ("RGB", "RGBA", "RGBX", "R"):  # others have no mode for the other order
        low = _bytes(path, "B" if order == "L" else "L")
    values = high.astype(np.uint16) << 8 | low
    if values.shape[2] == 4:
        return Stored(values[..., :3], 65535, high[..., 3])
    return Stored(values, 65535, _keyed(values, image))


def _bytes(path: Path, order: str) -> np.ndarray:
    """uint8 (H, W, C): one byte of each 16-bit value, the upper one if `order` ("L" or "B") is that of the file."""
    with opened(path) as image:
        image.tile = [tile._replace(args=_ordered(tile.args, order)) for tile in image.tile]
        return np.asarray(ImageOps.exif_transpose(image))


def _ordered(args: Any, order: str) -> Any:
    if not isinstance(args, str):
        return (_ordered(args[0], order), *args[1:])
    name, _, _ = args.partition(";")
    return args if name in ("LA", "RGBa") else f"{name};16{order}"


def _keyed(values: np.ndarray, image: Image.Image) -> np.ndarray | None:
    """Alpha of a PNG that marks one value, or one colour, as transparent."""
    transparent = image.info.get("transparency")
    return None if transparent is None else np.where((values == transparent).all(-1), 0, 255).astype(np.uint8)


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Pillow's raw mode of the file; "" if there is none."""
    args = image.tile[0].args if image.tile else ""
    name = args[0] if isinstance(args, tuple) and args else args
    return name if isinstance(name, str) else ""


def _bits(tags: Mapping[int, Any]) -> int:
    return max(tags.get(_BITS, (0,)))


def _signed(tags: Mapping[int, Any]) -> bool:
    return _SIGNED in tags.get(_SAMPLE_FORMAT, ())


def _white_is_zero(tags: Mapping[int, Any]) -> bool:
    return bool(tags) and tags.get(_PHOTOMETRIC, 0) == 0
