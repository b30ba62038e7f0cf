"""Files of all kinds, each made here, and what is read from them."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusion.data.decoding import read_image, read_picture
from diffusion.data.formats import SUFFIXES
from tests.helpers.pictures import BLUE, RED, load_photo, mean, plain
from tests.helpers.raw_files import chunk, packed, png, tiff


def halves(width=16, height=16):
    """Red above, blue below."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (0, height // 2, width, height))
    return image


def test_transparency_shows_white(folder):
    Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(folder / "clear.png")
    Image.new("LA", (9, 9), (0, 51)).save(folder / "faint.png")
    palette = Image.new("P", (9, 9), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 1)
    palette.save(folder / "palette.png", transparency=0)
    palette.save(folder / "opaque.png")
    assert mean(read_image(folder / "clear.png", 8, 3)) == [255, 255, 255]
    assert mean(read_image(folder / "faint.png", 8, 1)) == [204]
    assert read_image(folder / "palette.png", 9, 3)[:, 5, 5].tolist() == [255, 255, 255]
    assert read_image(folder / "palette.png", 9, 3)[:, 0, 0].tolist() == [0, 0, 255]
    assert read_image(folder / "opaque.png", 9, 3)[:, 5, 5].tolist() == [255, 0, 0]


def test_modes_become_grey_or_rgb(folder):
    plain(folder / "cmyk.jpg", (0, 255, 255, 0), mode="CMYK")
    plain(folder / "one.png", 1, mode="1")
    assert np.abs(read_image(folder / "cmyk.jpg", 8, 3).astype(int) - np.array(RED)[:, None, None]).max() < 30
    assert mean(read_image(folder / "one.png", 8, 3)) == [255, 255, 255]
    assert mean(read_image(plain(folder / "red.png"), 8, 1)) == [76]  # 0.299 * 255


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_16_bits_are_scaled_not_cut_off(folder, extension):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(folder / f"deep.{extension}")
    assert np.abs(read_image(folder / f"deep.{extension}", 8, 1)[0] - values / 257).max() <= 0.5


def test_a_smaller_scale_changes_next_to_nothing(folder):
    load_photo().resize((2560, 1704), Image.Resampling.LANCZOS).save(folder / "large.jpg", quality=92)
    Image.open(folder / "large.jpg").save(folder / "large.png")
    for size in 16, 32, 64, 128:
        small, whole = (read_image(folder / f"large.{suffix}", size, 3).astype(int) for suffix in ("jpg", "png"))
        assert np.abs(small - whole).max() <= 1


def test_floats_without_a_known_range_are_refused(folder):
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(folder / "float.tif")
    assert "no known range" in read_image(folder / "float.tif", 8, 1)


def test_exif_rotation_is_applied(folder):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    halves().save(folder / "turned.png", exif=exif)
    image = read_image(folder / "turned.png", 8, 3)
    assert image[:, 0, 0].tolist() == list(BLUE)
    assert image[:, -1, 0].tolist() == list(RED)


def test_the_first_frame_of_an_animation_counts(folder):
    frames = [Image.new("RGB", (9, 9), RED), Image.new("RGB", (9, 9), BLUE)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    assert mean(read_image(folder / "moving.gif", 8, 3)) == [255, 0, 0]


def test_resize_is_antialiased_and_the_crop_central(folder):
    wide = Image.new("RGB", (64, 16), BLUE)
    wide.paste(RED, (24, 0, 40, 16))
    wide.save(folder / "wide.png")
    image = read_image(folder / "wide.png", 8, 3)
    assert mean(image[:, :, 1:-1]) == [255, 0, 0]
    assert np.array_equal(image, image[:, :, ::-1])
    stripes = np.tile(np.array([0, 255], np.uint8), (32, 16))
    Image.fromarray(stripes).save(folder / "stripes.png")
    assert np.abs(read_image(folder / "stripes.png", 8, 1)[0, 2:-2, 2:-2].astype(int) - 127.5).max() < 10


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_left_out_before_they_are_unpacked(folder):
    (folder / "large.png").write_bytes(png(10_000, 10_000, 8, 0))
    (folder / "larger.png").write_bytes(png(30_000, 30_000, 8, 0))
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000)))
    (folder / "text.png").write_bytes(png(9, 9, 8, 0, text, pixels=bytes(81)))
    tracemalloc.start()
    message = [read_image(folder / f"{name}.png", 8, 1) for name in ("large", "larger", "text")]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message[0] == "ValueError: 10000x10000 is more than 89,478,485 pixels"
    assert message[1].startswith("DecompressionBombError")
    assert isinstance(message[2], str)
    assert peak < 80e6


MODES = {  # what a format can store
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "WEBP": ["RGB", "RGBA"],
    "BMP": ["1", "L", "P", "RGB"],
    "GIF": ["L", "P"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"],
    "AVIF": ["RGB", "RGBA"],
    "JPEG2000": ["L", "LA", "RGB", "RGBA", "I;16"],
    "PPM": ["1", "L", "RGB", "I;16"],
    "QOI": ["RGB", "RGBA"],
    "ICO": ["L", "P", "RGB", "RGBA"],
    "DDS": ["L", "LA", "RGB", "RGBA"],
    "SGI": ["L", "RGB", "RGBA"],
    "PCX": ["1", "L", "P", "RGB"],
}


@st.composite
def pictures(draw):
    """The bytes of an image file of any kind, whole or not, and whether it can be read."""
    kind = draw(st.sampled_from(sorted(MODES.keys() & Image.SAVE.keys())))
    mode = draw(st.sampled_from(MODES[kind]))
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (height, width, 4), np.uint8)
    image = Image.fromarray(values, "RGBA")
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = image.convert("L").convert("F")
    else:
        image = (image.convert("L") if mode == "LA" else image.convert("RGB")).convert(mode)
    exif = Image.Exif()
    if orientation := draw(st.integers(0, 8)):
        exif[0x0112] = orientation
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
    if kind in ("GIF", "WEBP", "TIFF", "PNG") and mode in ("RGB", "P") and draw(st.booleans()):
        options |= {"save_all": True, "append_images": [image, image]}
    image.save(file := io.BytesIO(), format=kind, **options)
    raw = file.getvalue()
    whole = draw(st.booleans())
    if not whole:
        raw = raw[: draw(st.integers(0, len(raw) - 1))]
    return raw, whole and mode != "F"


@settings(max_examples=150, deadline=None)
@given(picture=pictures(), channels=st.sampled_from([1, 3]), extension=st.sampled_from(SUFFIXES))
def test_any_image_is_read_or_rejected_with_a_reason(picture, channels, extension, tmp_path_factory):
    raw, readable = picture
    path = tmp_path_factory.getbasetemp() / f"any{extension}"
    path.write_bytes(raw)
    got = read_image(path, 8, channels)
    if readable or not isinstance(got, str):
        assert (got.shape, got.dtype) == ((channels, 8, 8), np.uint8), got
    else:
        assert got


def stored_as(path, values, bits, order="<", **tags):
    path.write_bytes(tiff(8, 8, [packed(values[..., None], bits, order)], order, t258=[bits], t277=[1], **tags))
    return path


def test_each_type_has_its_own_largest_value(folder):
    """As stored: 0 is black and the largest value of the type white, but for whole numbers of 32 bits, taken for 16."""
    ramp = np.arange(64).reshape(8, 8) / 63
    for name, bits, top, tags in (
        ("8", 8, 255, {"t262": [1]}),
        ("12", 12, 4095, {"t262": [1]}),
        ("16", 16, 65535, {"t262": [1]}),
        ("signed 8", 8, 127, {"t262": [1], "t339": [2]}),
        ("signed 16", 16, 32767, {"t262": [1], "t339": [2]}),
        ("signed 32", 32, 65535, {"t262": [1], "t339": [2]}),
        ("32", 32, 65535, {"t262": [1], "t339": [1]}),
        ("8, white is zero", 8, 255, {"t262": [0]}),
        ("16, white is zero", 16, 65535, {"t262": [0]}),
    ):
        found = read_picture(stored_as(folder / name, (ramp * top).round().astype(int), bits, **tags), 8, 1)
        wanted = 255 * (1 - ramp if "white" in name else ramp)
        assert np.abs(found.pixels[0] - wanted).max() <= 1 + (top == 127), name
        assert found.values == (0, top, top)


def test_a_value_declared_transparent_shows_white(folder):
    values = np.full((9, 9, 1), 30_000)
    values[0] = 100
    key = chunk(b"tRNS", struct.pack(">H", 100))
    (folder / "grey.png").write_bytes(png(9, 9, 16, 0, key, pixels=packed(values, 16)))
    key = chunk(b"tRNS", struct.pack(">3H", 100, 100, 100))
    (folder / "colour.png").write_bytes(png(9, 9, 16, 2, key, pixels=packed(values.repeat(3, 2), 16)))
    for name in "grey.png", "colour.png":
        found = read_picture(folder / name, 9, 1)
        assert found.pixels[0, :2, 4].tolist() == [255, 117]
        assert found.values == (30_000, 30_000, 65535)


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("white", [0, 1])
def test_limits_are_in_the_numbers_of_the_file(folder, bits, white):
    values = np.arange(64).reshape(8, 8)
    if bits == 32 and white == 0:
        pytest.skip("Pillow cannot read it")
    path = stored_as(folder / "x.tif", values, bits, t262=[white])
    levels = ((values - 10.0) / 40 * 255).clip(0, 255).round()
    assert np.array_equal(read_picture(path, 8, 1, (10, 50)).pixels[0], levels if white else 255 - levels)


def test_floats_and_negative_numbers_need_limits(folder):
    values = np.linspace(-0.5, 1.5, 64, dtype=np.float32).reshape(8, 8)
    path = stored_as(folder / "x.tif", values, 32, t262=[1], t339=[3])
    assert "values -0.5 to 1.5 have no known range: set dataset.range=auto or [low,high]" in read_picture(path, 8, 1)
    assert np.array_equal(read_picture(path, 8, 1, (0, 1)).pixels[0], (values.clip(0, 1).astype(float) * 255).round())
    path = stored_as(folder / "x.tif", np.arange(64).reshape(8, 8) - 1000, 16, t262=[1], t339=[2])
    assert "values -1000 to -937 have no known range" in read_picture(path, 8, 1)
    assert read_picture(path, 8, 1, (-1000, -937)).pixels[0, ::7, ::7].tolist() == [[0, 28], [227, 255]]


def test_limits_leave_transparency_alone(folder):
    values = np.tile([100, 200, 51], (9, 9, 1))[..., [0, 0, 1, 2]]
    (folder / "x.png").write_bytes(png(9, 9, 8, 6, pixels=packed(values, 8)))
    found = read_picture(folder / "x.png", 9, 3, (100, 200))
    assert found.pixels[:, 4, 4].tolist() == [204, 204, 255]
