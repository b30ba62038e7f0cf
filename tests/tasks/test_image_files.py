"""Pictures and masks as users have them: of any mode, any resolution, and not square."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from diffusion.ground.errors import Notice, UserError
from diffusion.spaces.pixels import Pixels
from diffusion.tasks import image_files
from diffusion.tasks.img2img import Img2Img
from diffusion.tasks.inpaint import Inpaint
from diffusion.tasks.interpolate import Interpolate
from tests.helpers.commands import command
from tests.helpers.random_model import random_model

SPACE = Pixels((1, 4, 4))
RIGHT = np.array([[0, 0, 255, 255]] * 4, dtype=np.uint8)  # white: drawn anew


@pytest.fixture
def save(tmp_path):
    """A function that writes an image, or grey values (H, W), and returns the path."""

    def write(image, name="mask.png", **options):
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(tmp_path / name, **options)
        return str(tmp_path / name)

    return write


@pytest.fixture
def picture(save):
    return save(np.full((4, 4), 100, dtype=np.uint8), "picture.png")


def painted(mode, where, over, hidden):
    """White where `where` is 255, transparent elsewhere, where the hidden colour is `hidden`."""
    alpha = Image.fromarray(where)
    grey = Image.fromarray(np.where(where, over, hidden).astype(np.uint8)).convert(mode.rstrip("A"))
    grey.putalpha(alpha)
    assert grey.mode == mode
    return grey


def known(picture, mask, space=SPACE):
    return Inpaint(picture, mask, 1, 1, space).known[0, 0].numpy()


@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("name", ["mask.png", "mask.tif"])
def test_white_painted_on_transparent_is_regenerated_and_the_rest_is_kept(save, picture, mode, hidden, name):
    mask = save(painted(mode, RIGHT, 255, hidden), name)
    np.testing.assert_array_equal(known(picture, mask), RIGHT == 0)


def of_palette(transparent):
    image = Image.fromarray((RIGHT > 0).astype(np.uint8), "P")
    image.putpalette([255, 255, 255, 255, 255, 255] if transparent else [0, 0, 0, 255, 255, 255])
    return image


MASKS = {
    "1 bit": (Image.fromarray(RIGHT).convert("1"), {}),
    "8 bits": (Image.fromarray(RIGHT), {}),
    "16 bits": (Image.fromarray(RIGHT.astype(np.uint16) * 257), {}),
    "colour": (Image.fromarray(RIGHT).convert("RGB"), {}),
    "palette": (of_palette(False), {}),
    "palette with a transparent colour": (of_palette(True), {"transparency": 0}),
    "grey with a transparent value": (
        Image.fromarray(np.where(RIGHT, 255, 200).astype(np.uint8)),
        {"transparency": 200},
    ),
    "soft": (Image.fromarray(np.array([[0, 127, 128, 255]] * 4, dtype=np.uint8)), {}),
    "half transparent": (painted("LA", (RIGHT * 0.6).astype(np.uint8), 255, 0), {}),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_of_any_mode_is_read(save, picture, kind):
    image, options = MASKS[kind]
    np.testing.assert_array_equal(known(picture, save(image, **options)), RIGHT == 0)


@pytest.mark.parametrize("scale", [1, 255])
def test_a_mask_of_floats_is_read(save, picture, scale):
    mask = save(Image.fromarray(RIGHT.astype(np.float32) / 255 * scale), "mask.tif")
    np.testing.assert_array_equal(known(picture, mask), RIGHT == 0)


@pytest.mark.parametrize(
    ("mask", "of"),
    [((4, 8), (4, 4)), ((8, 4), (4, 4)), ((30, 20), (20, 30)), ((8, 9), (8, 8)), ((640, 360), (640, 480))],
)
def test_a_mask_of_other_proportions_is_refused(save, mask, of):
    image = save(np.full(of[::-1], 100, dtype=np.uint8), "picture.png")
    path = save(np.eye(*mask[::-1], dtype=np.uint8) * 255)
    with pytest.raises(UserError) as refused:
        Inpaint(image, path, 1, 1, SPACE)
    message = (
        f"task.mask={path} has {mask[0]}x{mask[1]} pixels and task.image={image} {of[0]}x{of[1]}: expected a mask of"
    )
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("resolution", [(16, 8), (8, 4), (32, 16), (333, 167), (160, 80)])
def test_the_mask_is_transformed_as_its_image_at_any_resolution(save, resolution):
    """The picture is white where it is to be drawn anew: cropped, its black pixels are those that are kept."""
    width, height = resolution
    image = np.zeros((8, 16), dtype=np.uint8)
    image[:, 6:10] = 255  # of 16 columns the middle 8 are seen, as columns 1 and 2 of 4
    mask = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST))
    task = Inpaint(save(image, "picture.png"), save(mask), 1, 1, SPACE)
    np.testing.assert_array_equal(task.known[0, 0].numpy(), task.x_0[0, 0].numpy() < 0)
    np.testing.assert_array_equal(task.known[0, 0, 0].numpy(), [True, False, False, True])


def test_a_photograph_that_lies_on_its_side_is_masked_upright(save):
    upright = np.zeros((16, 8), dtype=np.uint8)
    upright[4:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be turned a quarter
    stored = Image.fromarray(upright).rotate(90, expand=True)
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(_with(stored, exif))), upright)
    image = save(stored, "picture.png", exif=exif)
    task = Inpaint(image, save(upright), 1, 1, SPACE)
    np.testing.assert_array_equal(task.known[0, 0, :, 0].numpy(), [False, False, True, True])
    np.testing.assert_array_equal(task.known[0, 0].numpy(), task.x_0[0, 0].numpy() < 0)


def _with(image, exif):
    image.getexif()[0x0112] = exif[0x0112]
    return image


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), "all black, nothing is drawn: its brightest value is 0 of 255"),
        (RIGHT // 255, "all black, nothing is drawn: its brightest value is 1 of 255"),
        (painted("LA", RIGHT, 0, 0), "all black, nothing is drawn: its brightest value is 0 of 255"),
        (np.full((4, 4), 255, np.uint8), "all white, nothing is kept"),
        (
            np.eye(64, dtype=np.uint8) * 255,
            "all black, nothing is drawn: its white parts are lost in the 4x4 pixels at the centre",
        ),
        (
            255 - np.eye(64, dtype=np.uint8) * 255,
            "all white, nothing is kept: its black parts are lost in the 4x4 pixels at the centre",
        ),
    ],
)
def test_a_mask_without_an_edge_is_refused_with_the_reason(save, picture, image, message):
    with pytest.raises(UserError, match=message) as refused:
        Inpaint(picture, save(image), 1, 1, SPACE)
    assert str(refused.value).endswith("white pixels are redrawn, black and transparent ones kept")


def test_a_file_that_is_no_image_is_rejected_by_its_key(save, picture, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for image, mask, key in (("text.png", "mask.png", "task.image"), ("picture.png", "text.png", "task.mask")):
        with pytest.raises(UserError, match=f"{key}=.*text.png: not a readable picture"):
            Inpaint(str(tmp_path / image), str(tmp_path / mask), 1, 1, SPACE)
    with pytest.raises(UserError, match=r"task.image=.*nothing.png: not a readable picture \(FileNotFoundError"):
        image_files.read("task.image", str(tmp_path / "nothing.png"), SPACE)


def test_an_image_over_white_is_unchanged(save):
    read = image_files.read("task.image", save(painted("LA", RIGHT, 0, 0), "picture.png"), SPACE)
    torch.testing.assert_close(read[0, 0, 0], torch.tensor([1.0, 1, -1, -1]))


def deep(save, top, name="deep.png"):
    return save((np.arange(16).reshape(4, 4) * (top / 15)).round().astype(np.uint16), name)


def test_an_image_is_read_in_the_range_of_the_training(save):
    twelve_bits, expected = deep(save, 4095), torch.linspace(-1, 1, 16).reshape(4, 4)
    mask = save(RIGHT)
    for task in (
        Inpaint(twelve_bits, mask, 1, 1, SPACE, (0, 4095)),
        Img2Img(twelve_bits, 10, SPACE, (0, 4095)),
    ):
        torch.testing.assert_close(task.x_0[0, 0], expected, rtol=0, atol=1 / 127)
    ends = Interpolate(twelve_bits, deep(save, 65535, "whole.png"), 2, None, SPACE, (0, 4095)).ends
    torch.testing.assert_close(ends[0][0, 0], expected, rtol=0, atol=1 / 127)
    assert (ends[1][0, 0, 1:] == 1).all()


def test_a_nearly_black_image_is_reported(save):
    with pytest.warns(
        Notice, match=r"task.image=.*deep.png holds values up to 4095 of 65535, and is read nearly black"
    ):
        Img2Img(deep(save, 4095), 10, SPACE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Img2Img(deep(save, 4095), 10, SPACE, (0, 4095))
        Img2Img(deep(save, 65535), 10, SPACE)
        Img2Img(save(np.zeros((4, 4), np.uint8), "night.png"), 10, SPACE)


def test_sample_reads_images_as_the_training_did(save, tmp_path, capsys, monkeypatch):
    image, given = deep(save, 4095), []
    monkeypatch.setattr(image_files, "read", lambda *args: given.append(args[3]) or torch.zeros(1, 1, 8, 8))
    config = ["dataset=image_folder", "dataset.path=x", "dataset.size=8", "dataset.channels=1", "schedule.T=20"]
    for range_, limits in (("[0,4095]", (0, 4095)), ("container", None)):
        ckpt = random_model(tmp_path / f"{limits}.ckpt", *config, f"dataset.range={range_}")
        line = ["task=img2img", f"task.image={image}", "task.t=5", "n=1", "sampler=ddim", "sampler.steps=2"]
        done = command("sample", f"ckpt={ckpt}", *line, f"output={tmp_path / str(limits)}", capsys=capsys)
        assert done.code == 0, done.err
        assert given.pop() == limits
