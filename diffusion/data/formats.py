"""The kinds of files that are read as pictures, and how they are recognised."""

import warnings
from pathlib import Path

import PIL
from PIL import Image, ImageFile

COMMON = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
_RARE = ("QOI", "ICO", "ICNS", "CUR", "PSD", "DDS", "SGI", "SUN", "PCX", "DCX", "XBM", "XPM", "MSP", "BLP")
_RARE += ("FLI", "FTEX", "GBR", "FITS", "PIXAR", "MCIDAS", "XVTHUMB", "DIB")
# By content, whatever a file is called, as far as this Pillow has them. No others are tried: it hands EPS to
# Ghostscript, which runs it, WMF to Windows, and what an IPTC record holds to any of these; of BUFR, GRIB, HDF5 and
# MPEG it knows the name alone; IM, IMT, PCD and SPIDER have no signature.
Image.init()
_WRONG = {"FITS"} if int(PIL.__version__.partition(".")[0]) < 13 else set()  # it took their bytes in the wrong order
FORMATS = tuple(name for name in COMMON + _RARE if name in Image.OPEN.keys() - _WRONG)
# A file of these names is a picture, if perhaps a broken one. TGA has no signature: its name is all there is.
SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff")
SUFFIXES += (".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga")


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


def opened(path: Path) -> ImageFile.ImageFile:
    """The picture in a file, not decoded yet. Raises whatever Pillow raises for another file."""
    if path.exists() and not path.is_file():
        raise OSError("not a file")  # a pipe would be waited for
    tga = ("TGA",) if path.suffix.lower() == ".tga" else ()
    return Image.open(path, formats=FORMATS + tga)
