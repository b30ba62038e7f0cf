"""The image file formats that are read, and their detection."""

import warnings
from pathlib import Path

import PIL
from PIL import Image, ImageFile

COMMON = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
_RARE = ("QOI", "ICO", "ICNS", "CUR", "PSD", "DDS", "SGI", "SUN", "PCX", "DCX", "XBM", "XPM", "MSP", "BLP")
_RARE += ("FLI", "FTEX", "GBR", "FITS", "PIXAR", "MCIDAS", "XVTHUMB", "DIB")
# Detected by content, whatever the file name, if this Pillow version supports them. No others are tried: Pillow passes
# EPS to Ghostscript, which executes it, WMF to Windows, and the content of an IPTC record to any of these; it only
# identifies BUFR, GRIB, HDF5 and MPEG; IM, IMT, PCD and SPIDER have no signature.
Image.init()
_WRONG = {"FITS"} if int(PIL.__version__.partition(".")[0]) < 13 else set()  # read in the wrong byte order
FORMATS = tuple(name for name in COMMON + _RARE if name in Image.OPEN.keys() - _WRONG)
# A file with one of these suffixes is an image, possibly a broken one. TGA has no signature, only its suffix.
SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff")
SUFFIXES += (".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga")


def is_picture(path: Path) -> bool:
    """Whether a file begins with the signature of an image format, whatever its name."""
    if not path.is_file():  # opening a pipe would block
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are issued again when the file is decoded
            Image.open(path, formats=FORMATS).close()
    except Image.DecompressionBombError:
        return True
    except Exception:  # decoders may raise any exception on other files
        return False
    return True


def opened(path: Path) -> ImageFile.ImageFile:
    """The image in a file, not decoded yet. Raises any exception of Pillow for other files."""
    if path.exists() and not path.is_file():
        raise OSError("not a file")  # opening a pipe would block
    tga = ("TGA",) if path.suffix.lower() == ".tga" else ()
    return Image.open(path, formats=FORMATS + tga)
