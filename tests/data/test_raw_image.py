"""Every kind of value that PNG and TIFF files can hold and Pillow can open, from files made byte by byte."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from diffusion.data import raw_image
from diffusion.data.formats import FORMATS
from tests.helpers.pictures import load_photo
from tests.helpers.raw_files import chunk, packed, png, tiff

H, W = 5, 7
TIFF_KINDS = sorted(TiffImagePlugin.OPEN_INFO, key=str)
PALETTE = np.random.default_rng(1).integers(0, 256, (256, 3))


def read(path, raw):
    path.write_bytes(raw)
    return raw_image.read(path)


def numbers(bits, channels, seed=0):
    values = np.random.default_rng(seed).integers(0, 2**bits, (H, W, channels))
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    return values


def as_8_bits(values, bits):
    return values * 255 // (2**bits - 1) if bits < 8 else values


@pytest.mark.parametrize(("bits", "colour"), sorted(PngImagePlugin._MODES))
@pytest.mark.parametrize("keyed", [False, True])
def test_png(bits, colour, keyed, tmp_path):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    values = numbers(bits, channels)
    chunks, alpha = [], None
    if colour == 3:
        chunks.append(chunk(b"PLTE", PALETTE[: 2**bits].astype(np.uint8).tobytes()))
    if keyed and colour == 3:
        chunks.append(chunk(b"tRNS", bytes([0, 128])))  # of the first two colours
        alpha = np.where(values == 0, 0, np.where(values == 1, 128, 255))[..., 0]
    elif keyed and channels in (1, 3):
        chunks.append(chunk(b"tRNS", struct.pack(f">{channels}H", *values[2, 3])))
        alpha = np.where((values == values[2, 3]).all(-1), 0, 255)
    if colour in (4, 6):
        alpha = values[..., -1] >> (bits - 8)
    found = read(tmp_path / "x", png(W, H, bits, colour, *chunks, pixels=packed(values, bits)))

    wanted = PALETTE[values[..., 0]] if colour == 3 else as_8_bits(values[..., : 1 if channels < 3 else 3], bits)
    if (bits, colour) == (16, 4):  # Pillow gives its upper bytes alone
        wanted = np.repeat((wanted >> 8) * 257, 3, axis=2)
    assert np.array_equal(found.values, wanted)
    assert found.top == (65535 if bits == 16 else 255)
    assert (found.alpha is None) if alpha is None else np.array_equal(found.alpha, alpha)
    assert not found.white_is_zero


def tiff_values(kind):
    """Numbers (H, W, n) to be stored, and what should be read: values, alpha, top and whether zero is white."""
    _, photometric, formats, _, all_bits, extra = kind
    bits, colours = all_bits[0], len(all_bits) - len(extra)
    values = numbers(bits - (formats == (2,)), len(all_bits))
    if formats == (2,) and bits > 8:
        values[1] *= -1
    if formats == (3,):
        values = np.random.default_rng(0).normal(size=(H, W, 1)).astype(np.float32)
    shown, alpha = values[..., :colours], None
    top = None if formats == (3,) else 2 ** (min(max(bits, 8), 16) - (formats == (2,) and bits < 32)) - 1
    if photometric == 2 and colours == 4 and not extra:
        shown, alpha = values[..., :3], values[..., 3]
    elif extra and extra[0] in (1, 2, 999) and photometric != 5:
        alpha = values[..., colours]
    if extra and extra[0] == 1:  # the colours were multiplied by it
        at_8 = shown >> (bits - 8), (alpha >> (bits - 8))[..., None]
        shown = (255 * at_8[0] // np.maximum(at_8[1], 1)).clip(0, 255)
        shown = shown * 257 if bits == 16 else shown
    if alpha is not None:
        alpha = alpha >> (bits - 8)
    if photometric == 3:
        shown = PALETTE[values[..., 0]]
    elif photometric == 5:
        cmyk = 255 - (values[..., :4] >> (bits - 8))
        shown, top = cmyk[..., :3] * cmyk[..., 3:] / 255, 255
    elif photometric == 6 and colours == 3:
        shown = rgb_of_ycbcr(values)
    elif photometric == 8:
        values = values // 16 + [100, 248, 248]  # colours that a screen can show
        values %= 256
        shown = rgb_of_lab(values)
    elif bits < 8:
        shown = as_8_bits(shown, bits)
    return values, shown, alpha, top, photometric == 0


def rgb_of_ycbcr(values):
    y, b, r = np.moveaxis(values - [0, 128, 128], -1, 0)
    return np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], -1).clip(0, 255)


def rgb_of_lab(values):
    """CIE 1976 L*a*b* with white D50, a* and b* signed, to sRGB."""
    signed = np.where(values > 127, values - 256, values)
    y = (values[..., 0] / 2.55 + 16) / 116
    f = np.stack([y + signed[..., 1] / 500, y, y - signed[..., 2] / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1, 0.8249]
    red, green, blue = [3.13386, -1.61687, -0.49061], [-0.97877, 1.91614, 0.03345], [0.07195, -0.22899, 1.40524]
    linear = (xyz @ np.transpose([red, green, blue])).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", TIFF_KINDS, ids=str)
@pytest.mark.parametrize("compressed", [False, True])
def test_tiff(kind, compressed, tmp_path):
    prefix, photometric, formats, fill, bits, extra = kind
    values, wanted, alpha, top, white_is_zero = tiff_values(kind)
    order = "<" if prefix == b"II" else ">"
    pixels = packed(values, bits[0], order)
    if compressed:
        pixels = zlib.compress(pixels)
    if fill == 2:
        pixels = bytes(int(f"{byte:08b}"[::-1], 2) for byte in pixels)
    tags = {
        "t258": bits,
        "t259": [8 if compressed else 1],
        "t262": [photometric],
        "t530": [1, 1],
        "t266": [fill],
        "t277": [len(bits)],
        "t339": formats * len(bits),
    }
    if extra:
        tags["t338"] = extra
    if photometric == 3:
        tags["t320"] = (PALETTE[: 2 ** bits[0]].T * 257).ravel().tolist()
    try:
        found = read(tmp_path / "x", tiff(W, H, [pixels], order, **tags))
    except (OSError, ValueError) as error:
        assert fill == 2 or (photometric, len(bits)) == (6, 1), "all that Pillow opens and cannot read"
        pytest.skip(str(error))

    exact = photometric not in (5, 6, 8)
    seen = np.abs(found.values.astype(float) - wanted)[slice(None) if alpha is None else alpha > 0]
    assert seen.max() <= (0 if exact else 2)
    assert found.top == top
    assert (found.alpha is None) if alpha is None else np.array_equal(found.alpha, alpha)
    assert found.white_is_zero == white_is_zero


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_colour_of_16_bits_in_planes_and_compressed(order, channels, planar, compressed, tmp_path):
    values = numbers(16, channels)
    planes = [packed(part, 16, order) for part in (np.split(values, channels, axis=2) if planar else [values])]
    tags = {"t258": [16] * channels, "t262": [2], "t277": [channels]}
    if channels == 4:
        tags["t338"] = [2]
    if compressed:
        planes, tags["t259"] = [zlib.compress(plane) for plane in planes], [8]
    found = read(tmp_path / "x", tiff(W, H, planes, order, **tags))
    if planar and compressed:  # the library that reads these gives the upper bytes alone
        values = (values >> 8) * 257
    assert np.array_equal(found.values, values[..., :3])
    assert (found.alpha is None) if channels == 3 else np.array_equal(found.alpha, values[..., 3] >> 8)


def test_what_is_deep_is_turned_upright_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is at the right
    turned = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    for bits, colour, channels in (16, 0, 1), (16, 2, 3), (8, 2, 3):
        values = numbers(bits, channels)
        found = read(tmp_path / "x", png(W, H, bits, colour, turned, pixels=packed(values, bits)))
        assert np.array_equal(found.values, np.rot90(values, -1))


def test_floats_that_are_no_numbers_are_refused(tmp_path):
    values = np.zeros((H, W, 1), np.float32)
    for odd in np.nan, np.inf:
        values[1, 1] = odd
        with pytest.raises(ValueError, match="infinite or not a number"):
            read(tmp_path / "x", tiff(W, H, [packed(values, 32, "<")], t258=[32], t262=[1], t277=[1], t339=[3]))


def test_what_is_transparent_is_not_counted(tmp_path):
    values = np.full((H, W, 2), [200, 255])
    values[0] = [7, 0]
    assert read(tmp_path / "x", png(W, H, 8, 4, pixels=packed(values, 8))).extremes() == (200, 200)
    values[..., 1] = 0
    assert read(tmp_path / "x", png(W, H, 8, 4, pixels=packed(values, 8))).extremes() == (np.inf, -np.inf)


@pytest.mark.parametrize(
    ("size", "least", "height"),
    [
        ((2560, 1704), None, 1704),
        ((2560, 1704), 9, 213),
        ((2560, 1704), 213, 213),
        ((2560, 1704), 214, 426),
        ((2560, 1704), 853, 1704),
        ((2560, 1708), 9, 427),  # half a pixel would be left over at 1/8
        ((2559, 1704), 9, 1704),
        ((1280, 848), 9, 848),  # not large
    ],
)
def test_a_large_jpeg_is_read_at_a_smaller_scale(size, least, height, tmp_path):
    load_photo().resize(size).save(tmp_path / "x.jpg")
    assert len(raw_image.read(tmp_path / "x.jpg", least).values) == height


@pytest.mark.skipif("FITS" not in FORMATS, reason="not with this Pillow")
@pytest.mark.parametrize(
    ("bits", "kind", "top"), [(8, "u1", 255), (16, "i2", 32767), (32, "i4", 65535), (-32, "f4", None)]
)
def test_fits(bits, kind, top, tmp_path):
    """Its whole numbers have a sign, but for those of 8 bits."""
    values = np.linspace(0 if bits == 8 else -120, 127, H * W).reshape(H, W).astype(f">{kind}")
    cards = ["SIMPLE  =                    T", f"BITPIX  = {bits:20}", "NAXIS   =                    2"]
    cards += [f"NAXIS1  = {W:20}", f"NAXIS2  = {H:20}", "END"]
    header = "".join(card.ljust(80) for card in cards).ljust(2880).encode()
    found = read(tmp_path / "x", header + values.tobytes().ljust(2880, b"\0"))
    assert np.array_equal(found.values[..., 0], values[::-1])  # its first row is the lowest
    assert found.top == top
    assert not found.white_is_zero


@pytest.mark.parametrize("largest", [100, 255, 1000, 4095, 65535])
def test_portable_grey_maps_declare_their_largest_value(largest, tmp_path):
    values = (np.arange(H * W).reshape(H, W) / (H * W - 1) * largest).round().astype(int)
    pixels = values.astype(">u2" if largest > 255 else "u1").tobytes()
    found = read(tmp_path / "x", b"P5 %d %d %d\n" % (W, H, largest) + pixels)
    assert np.abs(found.values[..., 0] / found.top - values / largest).max() < 0.003
