"""Image files -> uint8 arrays of one size, read by content."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# By content, whatever a file is called. No others are tried: Pillow hands an EPS file to Ghostscript, which runs it.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
BACKGROUND = "white"  # what shows through transparent pixels


def read_image(path: Path, size: int, channels: int) -> np.ndarray | str:
    """The (first) image of a file as uint8 (channels, size, size), or the reason why it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a file")  # a pipe would be waited for
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise ValueError(f"{image.width}x{image.height} is more than {Image.MAX_IMAGE_PIXELS:,} pixels")
            flat = _flatten(_to_8_bits(ImageOps.exif_transpose(image)), "L" if channels == 1 else "RGB")
    except Exception as error:  # decoders raise whatever they like on broken files
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    square = np.asarray(ImageOps.fit(flat, (size, size), Image.Resampling.BICUBIC))
    return square[None] if channels == 1 else square.transpose(2, 0, 1)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Pillow cuts 16-bit grey values off at 255 when it converts them; here they are scaled."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"values {values.min():g} to {values.max():g} have no known range")
    return Image.fromarray((values / 257).round().astype(np.uint8))


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Any 8-bit image as `mode` ("L" or "RGB"), transparency over the background."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    return image.convert("RGB").convert(mode)
