"""The values of a set: limits found, and what is said of them."""

import math

import numpy as np
import pytest
from PIL import Image

from diffusion.data import value_range
from diffusion.data.decoding import Values
from diffusion.data.image_folder import ImageFolder
from diffusion.data.value_range import Seen
from diffusion.ground.errors import UserError
from diffusion.runs import checkpoint, manifest
from tests.helpers.commands import command, tiny


@pytest.mark.parametrize(
    "given", ["containers", "", None, 5, [1], [1, 2, 3], [2, 1], [1, 1], [0, math.inf], "01", ["a", "b"]]
)
def test_an_invalid_range_is_rejected(given):
    with pytest.raises(UserError, match=r"dataset.range=.*: expected container, auto, or two numbers \[low,high\]"):
        ImageFolder(path="x", batch_size=1, channels=1, size=8, range=given)


def test_auto_is_the_least_and_the_largest_of_all():
    values = [Values(3, 90, 255), Values(-1, 40, 255), Values(math.inf, -math.inf, 255)]
    assert value_range.found(values, "x") == (-1, 90)
    for nothing, why in (
        ([Values(7, 7, 255)] * 2, "all values are 7"),
        (values[-1:], "everything is transparent"),
        ([Values(0, 1, 255), Values(0, 1, None)], "files are of different types, floats and values from 0 to 255"),
    ):
        with pytest.raises(UserError, match=f"x: dataset.range=auto is undefined, since {why}: set dataset.range="):
            value_range.found(nothing, "x")


@pytest.mark.parametrize(
    ("top", "least", "largest", "wanted"),
    [
        (65535, 0, 9, "[0,9]"),
        (65535, 0, 255, "[0,255]"),
        (65535, 3, 980, "[0,1023]"),
        (65535, 0, 4080, "[0,4095]"),
        (65535, 0, 16383, "[0,16383]"),
        (65535, 30000, 31000, "[30000,31000]"),
        (255, 0, 1, "[0,1]"),
        (65535, 0, 40000, None),
        (255, 0, 200, None),
        (65535, 7, 7, None),
        (None, 0, 1, None),
    ],
)
def test_a_dataset_that_uses_little_of_its_range_is_reported(top, least, largest, wanted):
    message = value_range.lines("container", None, [Seen(top, 40, 0, least, largest)], 40)
    if wanted is None:
        assert not message
    else:
        [line] = message
        assert line.startswith(
            f"40 images in files for values from 0 to {top}, but their values are only {least} to {largest}"
        )
        assert line.endswith(f"set dataset.range={wanted} or dataset.range=auto")


def test_the_effect_of_a_range_is_reported():
    seen = Seen(65535)
    for least, largest in (0, 4000), (5, 5000), (10, 100):
        seen = seen.updated(Values(least, largest, 65535), (2, 4095))
    assert value_range.lines((2, 4095), (2, 4095), [seen], 3) == [
        "dataset.range=[2,4095] clips 2 of 3 images, with values from 0 to 5000"
    ]
    assert value_range.lines("auto", (0, 5000), [seen], 3) == ["dataset.range=auto: 0 becomes black and 5000 white"]
    _, mixed = value_range.lines((2, 4095), (2, 4095), [seen, Seen(255, 1, 0, 3, 4)], 4)
    assert "different types: 3 images in files for values from 0 to 65535; 1 images in files for values" in mixed


def test_invisible_images_are_reported():
    assert value_range.lines("container", None, [Seen(255, 3, 0, 0, 255)], 5) == [
        "2 of 5 images are fully transparent and become white"
    ]


def of_12_bits(folder, name, largest):
    ramp = np.linspace(0, largest, 64).reshape(8, 8)
    Image.fromarray(ramp.astype(np.uint16)).save(folder / f"{name}.png")


@pytest.fixture
def train(folder, capsys):
    for k in range(4):
        of_12_bits(folder, k, 4000)
    line = ["dataset=image_folder", f"dataset.path={folder}", "dataset.size=8", "dataset.channels=1"]
    line += ["dataset.batch_size=2", "callbacks.preview.n=0", f"run.dir={folder.parent / 'run'}"]

    def run(*given):
        return command("train", *tiny(*line, *given), capsys=capsys)

    return run


def test_a_run_keeps_what_auto_found(train, folder, caplog):
    done = train("dataset.range=auto", "trainer.max_steps=1")
    assert done.code == 0, done.err
    assert caplog.text.count("dataset.range=auto: 0 becomes black and 4000 white") == 1
    assert checkpoint.read(checkpoint.find(done.folder))["config"]["dataset"]["range"] == [0, 4000]
    assert manifest.read(done.folder)["config"]["dataset"]["range"] == [0, 4000]

    of_12_bits(folder, "brighter", 8000)
    done = train("dataset.range=auto", "trainer.max_steps=2", "resume=auto")
    assert done.code == 0, done.err
    assert "dataset.range=[0.0, 4000.0], as in the first session" in done.out
    assert "dataset.range=[0,4000] clips 1 of 5 images, with values from 0 to 8000" in caplog.text


def test_a_dataset_of_12_bits_gets_a_suggested_range(train, caplog):
    done = train("trainer.max_steps=1")
    assert done.code == 0, done.err
    assert caplog.text.count("set dataset.range=[0,4095] or dataset.range=auto") == 1
