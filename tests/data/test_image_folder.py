"""A folder of odd images, each made here."""

import io
import os
import shutil
import struct
import tracemalloc
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusion.data.decoding import read_image
from diffusion.data.image_folder import EXTENSIONS, ImageFolder
from diffusion.errors import UserError

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "images"
    root.mkdir()
    return root


def data(root, **options):
    return ImageFolder(**{"path": str(root), "channels": 3, "size": 8, "batch_size": 2, **options})


def plain(path, colour=RED, size=(12, 8), mode="RGB"):
    path.parent.mkdir(exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def halves(width=16, height=16):
    """Red above, blue below."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (0, height // 2, width, height))
    return image


def mean(array):
    return array.reshape(array.shape[0], -1).mean(1).round().tolist()


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


def test_broken_images_are_skipped_and_named_or_refused(folder, caplog):
    for k in range(4):
        plain(folder / f"{k}.JPG" if k % 2 else folder / f"{k}.png")
    (folder / "empty.png").touch()
    noise = torch.randint(256, (64, 64), generator=torch.Generator().manual_seed(0)).byte().numpy()
    Image.fromarray(noise).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:2000])
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("not an image")

    skipping = data(folder)
    skipping.prepare_data()
    assert "3 broken images" in caplog.text
    for name in ("empty.png", "cut.jpg (OSError: image file is truncated", "dangling.png (FileNotFoundError"):
        assert name in caplog.text
    assert len(skipping.split("train")[0]) + len(skipping.split("val")[0]) == 5
    with pytest.raises(UserError, match=r"3 broken images: .*on_broken=skip"):
        data(folder, on_broken="error").prepare_data()


def test_nothing_but_pictures_is_read(folder, tmp_path):
    """By content: Pillow would hand PostScript to Ghostscript, a program, whatever the file is called."""
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n0 0 9 9 rectfill\nshowpage\n%%EOF\n"
    (folder / "page.png").write_text(eps)
    Image.new("RGB", (9, 9)).save(folder / "portable.png", format="PPM")
    for name in ("page.png", "portable.png"):
        assert read_image(folder / name, 8, 3).startswith("UnidentifiedImageError")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "MPO"])
def test_the_content_counts_not_the_extension(folder, kind):
    Image.new("RGB", (9, 9), RED).save(folder / "picture.tif", format=kind)
    assert np.abs(read_image(folder / "picture.tif", 8, 3).astype(int) - np.array(RED)[:, None, None]).max() < 5


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *chunks, pixels=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    image = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + image + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_left_out_before_they_are_unpacked(folder):
    (folder / "large.png").write_bytes(png(10_000, 10_000))
    (folder / "larger.png").write_bytes(png(30_000, 30_000))
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000)))
    (folder / "text.png").write_bytes(png(9, 9, text, pixels=bytes(90)))
    tracemalloc.start()
    said = [read_image(folder / f"{name}.png", 8, 1) for name in ("large", "larger", "text")]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert said[0] == "ValueError: 10000x10000 is more than 89,478,485 pixels"
    assert said[1].startswith("DecompressionBombError")
    assert isinstance(said[2], str)
    assert peak < 80e6


def test_pipes_and_endless_links_are_walked_past(folder):
    for k in range(3):
        plain(folder / "in" / f"{k}.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "in" / "up").symlink_to(folder)
    found = data(folder)
    assert len(found.files) == 4
    assert len(found.split("train")[0]) == 2
    assert found._decoded().skipped == {"pipe.png": "OSError: not a file"}


def test_a_name_need_not_be_text(folder, caplog):
    for k in range(3):
        plain(folder / f"{k}.png")
    (folder / os.fsdecode(b"gr\xfc\xdfe.png")).touch()
    data(folder).prepare_data()
    assert r"gr\udcfc\udcdfe.png (UnidentifiedImageError" in caplog.text


def test_a_full_disk_and_a_folder_out_of_reach_are_named(folder, monkeypatch):
    plain(folder / "0.png")
    plain(folder / "1.png")
    with pytest.raises(UserError, match=r"cannot be kept in /dev/null/x \(Not a directory\): set dataset.cache"):
        data(folder, cache="/dev/null/x").prepare_data()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r"0 MB needed, 0 MB free"):
        data(folder).prepare_data()


MODES = {  # what a format can store
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "WEBP": ["RGB", "RGBA"],
    "BMP": ["1", "L", "P", "RGB"],
    "GIF": ["L", "P"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"],
}


@st.composite
def pictures(draw):
    """The bytes of an image file of any kind, whole or not, and whether it can be read."""
    kind = draw(st.sampled_from(sorted(MODES)))
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


@settings(max_examples=150, deadline=None, derandomize=True)
@given(picture=pictures(), channels=st.sampled_from([1, 3]), extension=st.sampled_from(EXTENSIONS))
def test_any_picture_is_read_or_refused_with_a_reason(picture, channels, extension, tmp_path_factory):
    raw, readable = picture
    path = tmp_path_factory.getbasetemp() / f"any{extension}"
    path.write_bytes(raw)
    got = read_image(path, 8, channels)
    if readable or not isinstance(got, str):
        assert (got.shape, got.dtype) == ((channels, 8, 8), np.uint8), got
    else:
        assert got


def test_classes_are_the_top_level_folders(folder):
    for k in range(4):
        plain(folder / "cats" / f"{k}.png", RED)
        plain(folder / "dogs" / f"{k}.png", BLUE)
    plain(folder / "stray.png", (0, 255, 0))
    (folder / "empty").mkdir()
    found = data(folder)
    assert found.classes == ("cats", "dogs")
    for split in ("train", "val"):
        for image, label in zip(*found.split(split), strict=True):
            assert mean(image.double()) == [list(RED), list(BLUE), [0, 255, 0]][label]


def test_one_folder_is_no_class(folder):
    for k in range(4):
        plain(folder / "cats" / f"{k}.png")
    found = data(folder)
    assert found.classes is None
    assert next(iter(found.train_dataloader())).y.tolist() == [-1, -1]


def test_the_split_is_disjoint_whole_and_the_same_for_every_seed(folder):
    for k in range(40):
        plain(folder / f"{k:02}.png", (k, k, k))
    splits = [data(folder, val_fraction=0.1, seed=seed).split for seed in (0, 1)]
    train, val = (splits[0](name)[0][:, 0, 0, 0].tolist() for name in ("train", "val"))
    assert len(val) == 4
    assert sorted(train + val) == list(range(40))
    assert val != list(range(4))
    assert splits[1]("val")[0].equal(splits[0]("val")[0])
    assert len(data(folder, val_fraction=0.001).split("val")[0]) == 1
    assert len(data(folder, val_fraction=0.999).split("train")[0]) == 1


def test_images_are_decoded_once_and_again_when_anything_changes(folder, monkeypatch):
    decoded = []

    def counting(path, size, channels):
        decoded.append(path.name)
        return read_image(path, size, channels)

    monkeypatch.setattr("diffusion.data.decoded.read_image", counting)
    for k in range(3):
        plain(folder / f"{k}.png")

    def newly_decoded(**options):
        decoded.clear()
        images, _ = data(folder, **options).split("train")
        assert (images[:, 0] == 255).all()
        return len(decoded)

    assert newly_decoded() == 3
    assert newly_decoded() == 0
    assert newly_decoded(seed=1, val_fraction=0.5, batch_size=1) == 0
    assert newly_decoded(size=4) == 3
    os.utime(folder / "0.png", (1, 1))
    assert newly_decoded() == 3
    plain(folder / "3.png")
    assert newly_decoded() == 4
    assert newly_decoded(cache=str(folder / ".cache")) == 4
    assert not list(folder.parent.glob("cache/*/.decoding*")), "temporary folders are removed"


def test_an_interrupted_decoding_leaves_nothing(folder, monkeypatch):
    plain(folder / "0.png")
    plain(folder / "1.png")

    def interrupt(path, size, channels):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("diffusion.data.decoded.read_image", interrupt)
        with pytest.raises(KeyboardInterrupt):
            data(folder).prepare_data()
    assert not os.listdir(data(folder).cache.folder)
    assert len(data(folder).split("train")[0]) == 1


def test_batches_cannot_write_into_the_cache(folder):
    plain(folder / "0.png")
    plain(folder / "1.png")
    data(folder).split("train")[0].zero_()
    assert data(folder).split("train")[0].equal(torch.tensor(RED).byte()[None, :, None, None].expand(1, 3, 8, 8))


def test_mistakes_are_named(folder):
    (folder / "notes.txt").touch()
    with pytest.raises(UserError, match=r"has no images: 1 files seen, none of them with \.png \.jpg"):
        data(folder).prepare_data()
    with pytest.raises(UserError, match=r"missing is not a folder: 0 files seen"):
        data(folder / "missing").prepare_data()
    plain(folder / "only.png")
    with pytest.raises(UserError, match="1 of 1 images can be read, but at least 2"):
        data(folder).prepare_data()
    for option, message in (
        ({"on_broken": "ignore"}, "on_broken=ignore must be skip or error"),
        ({"val_fraction": 0}, "val_fraction=0"),
        ({"channels": 2}, "channels=2"),
    ):
        with pytest.raises(UserError, match=message):
            data(folder, **option)
