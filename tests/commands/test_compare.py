"""`compare.py`: a cell is what `sample.py` draws, conditions, guidance and task included; see also test_sample.py."""

import json

import numpy as np
import pytest
from PIL import Image

from diffusion.evaluation import plots
from tests.helpers.commands import command
from tests.helpers.random_model import random_model

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    overrides = ["schedule.T=20", "prediction=v", "sampler=ddpm", "guidance.scale=2"]
    classes = ["zero", "one", "two", "three"]
    return random_model(tmp_path_factory.mktemp("model") / "model.ckpt", *overrides, classes=classes)


@pytest.fixture
def compare(ckpt, tmp_path, capsys, monkeypatch):
    """Runs `compare.py`; returns how it ended, and what is in the figure: its rows, columns and the rows' titles."""
    drawn = []
    draw = plots.draw_table
    monkeypatch.setattr(plots, "draw_table", lambda *table: drawn.append(table) or draw(*table))

    def run(*overrides):
        drawn.clear()
        done = command("compare", f"ckpt={ckpt}", *overrides, f"output={tmp_path / 'out'}", capsys=capsys)
        return done, *(drawn[0] if drawn else [])

    return run


def images(folder):
    return [np.asarray(Image.open(file)).astype(int) for file in sorted((folder / "images").iterdir())]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["y=[one,three]", "guidance.scale=3", "clipping=none", "weights=raw", "seed=4"],
        ["y=two", "guidance=auto"],
        ["task=img2img", "task.image={picture}", "task.t=10"],
        ["task=interpolate", "task.start=3", "task.end=8", "task.points=2", "y=[one,three]"],
    ],
)
def test_a_cell_shows_what_sample_draws(overrides, compare, ckpt, tmp_path, capsys):
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(tmp_path / "picture.png")
    overrides = ["n=4", *(word.format(picture=tmp_path / "picture.png") for word in overrides)]
    done, rows, columns, titles = compare(*overrides, "samplers=[heun,ddim]", "steps=[2,4]")
    assert done.code == 0, done.err
    assert done.folder == tmp_path / "out" / "compare.png"
    assert (list(rows), columns) == (["heun", "ddim"], ["2 steps", "4 steps"])
    asked = next((word.partition("=")[2].strip("[]").split(",") for word in overrides if word.startswith("y=")), None)
    assert titles == asked
    out = f"output={tmp_path / 'samples'}"
    sampled = command("sample", f"ckpt={ckpt}", *overrides, "sampler=ddim", "sampler.steps=4", out, capsys=capsys)
    grid = rows["ddim"][1][0][0].numpy().astype(int)
    order = [0, 2, 1, 3] if len(asked or []) == 2 and "task=interpolate" not in overrides else [0, 1, 2, 3]
    shape = (1, 4) if len(asked or []) == 1 else (2, 2)
    for index, number in enumerate(order):
        top, left = (58 * k + 1 for k in divmod(index, shape[1]))
        cell = grid[top : top + 56 : 7, left : left + 56 : 7]
        assert abs(cell - images(sampled.folder)[number]).max() <= 1


def test_a_key_without_an_effect_in_any_cell_is_refused(compare):
    ends = ["task=interpolate", "task.start=3", "task.end=8", "steps=[2]", "seed=1"]
    assert "seed has no effect" in compare(*ends, "samplers=[ddim,unipc]")[0].err
    assert compare(*ends, "samplers=[ddim,ddpm]")[0].code == 0


def test_the_description_has_all_that_the_image_depends_on(compare, tmp_path):
    assert compare("y=two", "samplers=[ddim]", "steps=[2,3]")[0].code == 0
    described = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert described["samplers"] == {
        "ddim": {"class": "DDIM", "steps": [2, 3], "times": "trailing", "eta": 0.0, "noise": "independent"}
    }
    assert (described["n"], described["y"], described["guidance"]["scale"]) == (4, [2], 2)
    assert "sampler" not in described
