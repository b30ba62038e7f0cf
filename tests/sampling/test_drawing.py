"""Which image is of which class, and which pictures stand where in the grid."""

import numpy as np
import pytest
import torch
from PIL import Image

import diffusion
from diffusion.ground import images
from diffusion.runs import build
from diffusion.tasks.interpolate import Interpolate
from tests.helpers.commands import command
from tests.helpers.random_model import random_model

pytestmark = pytest.mark.filterwarnings("ignore")
CLASSES = ["zero", "one", "two", "three"]


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    overrides = ["schedule.T=20", "prediction=v", "sampler=ddim", "sampler.steps=4"]
    return random_model(tmp_path_factory.mktemp("model") / "model.ckpt", *overrides, classes=CLASSES)


@pytest.fixture
def sample(ckpt, tmp_path, capsys):
    def run(*given):
        name, own = ("sample", ["sampler=ddim", "sampler.steps=4"])
        if given[0] == "compare":
            name, own, given = "compare", ["steps=[2]", "samplers=[ddim]"], given[1:]
        done = command(name, f"ckpt={ckpt}", *own, *given, capsys=capsys)
        assert done.code == 0, done.err
        return done

    return lambda *given: run(*given, f"output={tmp_path / 'out'}")


def drawn(done):
    files = sorted((done.folder / "images").iterdir())
    return np.stack([np.asarray(Image.open(file)).astype(int) for file in files])


def notes(done):
    return [line.removeprefix("note: ") for line in done.err.splitlines() if line.startswith("note: ")]


def expected(ckpt, labels, points):
    """Each image of its row by itself, of the class that is meant."""
    model = diffusion.load(ckpt)
    task = Interpolate("3", "8", points, None, model.space)
    sampler = build.instantiate({"_target_": "diffusion.samplers.ddim.DDIM", "steps": 4})
    found = model.sample(len(labels), y=labels, task=task, sampler=sampler, progress=False)
    return images.to_uint8(found)[:, 0].numpy().astype(int)


ROW = ["task=interpolate", "task.start=3", "task.end=8", "task.points=3"]


def test_interpolation_has_a_class_a_row(ckpt, sample):
    done = sample(*ROW, "y=[one,three]", "n=9")
    whole = expected(ckpt, [1, 1, 1, 3, 3, 3, 1, 1, 1], points=3)
    assert abs(drawn(done) - whole).max() <= 1
    assert abs(drawn(done) - expected(ckpt, [1, 3] * 4 + [1], points=3)).max() > 1
    assert notes(done) == []


def test_a_row_that_n_cuts_short_is_completed_later(ckpt, sample):
    line = [*ROW, "y=[one,three]", "batch_size=2"]
    cut = drawn(sample(*line, "n=5"))
    assert len(cut) == 5
    whole = drawn(sample(*line, "n=6"))
    assert abs(whole - expected(ckpt, [1, 1, 1, 3, 3, 3], points=3)).max() <= 1
    assert np.array_equal(whole[:5], cut)


def test_the_grid_of_an_interpolation_has_its_rows_and_their_classes(sample, monkeypatch):
    made = []
    grid = images.grid
    monkeypatch.setattr(images, "grid", lambda *args, **options: made.append((args, options)) or grid(*args, **options))
    done = sample(*ROW, "y=[one,three]", "n=8")
    [(cells,), options] = made[-1]
    assert torch.equal(cells[:, 0].int(), torch.from_numpy(drawn(done)).int())
    assert options == {"columns": 3, "names": ["one", "three", "one"]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["y=all", "n=4"], None),
        (["y=[one,two]", "n=64", "batch_size=64"], None),
        (["compare", "y=all"], None),
        (["compare", "y=all", "n=2"], "y has 4 classes, but n=2 images"),
        (["y=all", "n=3"], "y has 4 classes, but n=3 images cover only the first 3: n=4 covers all"),
        ([*ROW, "y=[one,three]"], "y has 2 classes, but n=3 images cover only the first 1: n=6 covers all"),
        ([*ROW, "y=[one,three]", "n=4"], None),
    ],
)
def test_classes_that_are_not_sampled_are_reported(sample, given, message):
    found = notes(sample(*given))
    assert [text[: len(message)] for text in found] == [message] if message else not found
