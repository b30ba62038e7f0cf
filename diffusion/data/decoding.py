"""Image files -> uint8 arrays of one size, read by content."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

_COMMON = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
_RARE = (
    "QOI",
    "ICO",
    "ICNS",
    "CUR",
    "PSD",
    "DDS",
    "SGI",
    "SUN",
    "PCX",
    "DCX",
    "XBM",
    "XPM",
    "MSP",
    "BLP",
    "FLI",
    "FTEX",
)
_RARE += ("GBR", "FITS", "PIXAR", "MCIDAS", "XVTHUMB", "DIB")
# By content, whatever a file is called, as far as this Pillow has them. No others are tried: it hands EPS to
# Ghostscript, which runs it, WMF to Windows, and what an IPTC record holds to any of these; of BUFR, GRIB, HDF5 and
# MPEG it knows the name alone; IM, IMT, PCD and SPIDER have no signature.
Image.init()
FORMATS = tuple(name for name in _COMMON + _RARE if name in Image.OPEN)
# A file of these names is a picture, if perhaps a broken one. TGA has no signature: its name is all there is.
SUFFIXES = (
    ".png",
    ".apng",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".webp",
    ".bmp",
    ".dib",
    ".gif",
    ".tif",
    ".tiff",
    ".avif",
)
SUFFIXES += (".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga")
BACKGROUND = "white"  # what shows through transparent pixels


def is_picture(path: Path) -> bool:
    """Whether a file begins as a picture does, whatever it is called."""
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever decodes the file hears them
            Image.open(path, formats=FORMATS).close()
    except Image.DecompressionBombError:
        return True
    except Exception:  # decoders raise whatever they like on other files
        return False
    return True


def read_image(path: Path, size: int, channels: int) -> np.ndarray | str:
    """The (first) image of a file as uint8 (channels, size, size), or the reason why it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a file")  # a pipe would be waited for
        tga = ("TGA",) if path.suffix.lower() == ".tga" else ()
        with Image.open(path, formats=FORMATS + tga) as image:
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
