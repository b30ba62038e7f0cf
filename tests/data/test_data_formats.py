"""Which files are images, by their content."""

import os

import numpy as np
import pytest
from PIL import Image

from diffusion.data.decoding import read_image
from diffusion.data.formats import FORMATS, is_picture
from tests.helpers.pictures import BLUE, RED, mean, plain
from tests.helpers.raw_files import png


def test_only_images_are_read(folder, tmp_path):
    """By content: Pillow would hand PostScript to Ghostscript, a program, whatever the file is called."""
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n0 0 9 9 rectfill\nshowpage\n%%EOF\n"
    (folder / "page.png").write_text(eps)
    (folder / "meta.png").write_bytes(b"\xd7\xcd\xc6\x9a\0\0" + bytes(60))
    (folder / "stub.png").write_bytes(b"GRIB" + bytes(60))
    Image.new("RGB", (9, 9)).save(folder / "unsigned.png", format="TGA")
    for name in ("page.png", "meta.png", "stub.png", "unsigned.png"):
        assert read_image(folder / name, 8, 3).startswith("UnidentifiedImageError")
        assert not is_picture(folder / name)
    assert not {"EPS", "WMF", "IPTC", "BUFR", "GRIB", "HDF5", "MPEG"} & {*FORMATS}


COLOUR = ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "MPO", "AVIF", "JPEG2000", "PPM", "QOI", "ICO", "ICNS", "DDS"]


COLOUR += ["SGI", "PCX", "DIB"]


@pytest.mark.parametrize("kind", [kind for kind in COLOUR if kind in Image.SAVE])
def test_the_content_counts_not_the_extension(folder, kind):
    for name in ("picture.tif", "picture.dat", "picture"):
        Image.new("RGB", (16, 16), RED).save(folder / name, format=kind)
        assert np.abs(read_image(folder / name, 8, 3).astype(int) - np.array(RED)[:, None, None]).max() < 5
        assert is_picture(folder / name)


@pytest.mark.parametrize("kind", ["MSP", "XBM"])
def test_black_and_white_formats(folder, kind):
    Image.new("1", (16, 16), 1).save(folder / "picture", format=kind)
    assert mean(read_image(folder / "picture", 8, 1)) == [255]
    assert is_picture(folder / "picture")


def test_targa_is_known_by_its_name_alone(folder):
    """It has no signature, and nearly any bytes could be one."""
    for name in ("a.tga", "b.TGA"):
        assert mean(read_image(plain(folder / name), 8, 3)) == [255, 0, 0]
    Image.new("RGB", (9, 9), BLUE).save(folder / "png.tga", format="PNG")
    assert mean(read_image(folder / "png.tga", 8, 3)) == [0, 0, 255]


def test_other_files_are_not_taken_for_images(folder):
    texts = ["", "P", "BM said", "GIF", "#define WIDTH 9\n", "I came\nI saw", "II*\0", "RIFF1234WAVE", "{}", "P6 pens"]
    for k, text in enumerate(texts):
        (folder / str(k)).write_text(text)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to(folder / "nowhere")
    assert [path.name for path in sorted(folder.iterdir()) if is_picture(path)] == []
    (folder / "bomb").write_bytes(png(30_000, 30_000, 8, 0))
    assert is_picture(folder / "bomb"), "one that is then named as broken"
