"""Previews: which epochs, whose weights, which files, and nothing taken from the global random state."""

import random
import time

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.clipping import Unclipped
from diffusion.config import registry
from diffusion.ground import images
from diffusion.ground.errors import UserError
from diffusion.ground.random import normal
from diffusion.guidance import ClassifierFree
from diffusion.optimization.averages import Decay
from diffusion.runs import checkpoint
from diffusion.samplers.ddim import DDIM
from diffusion.training.cadence import Cadence
from diffusion.training.callbacks.ema import EMA
from diffusion.training.callbacks.pictures import Pictures, show
from diffusion.training.callbacks.preview import Preview
from diffusion.training.callbacks.validations import Validations
from diffusion.training.loggers.tensorboard import TensorBoard
from tests.helpers.commands import command, tiny
from tests.helpers.painter import Painter
from tests.helpers.previews import fit, pixels
from tests.helpers.random_model import random_model


def test_one_grid_per_due_epoch_and_none_in_the_sanity_check(tmp_path):
    when = Validations(Cadence(every_n_epochs=1), Cadence(every_n_epochs=2))
    pictures = Preview(tmp_path, n=5, seed=7, sampler={"steps": 2}, validations=when)
    model, trainer = fit(tmp_path, when, pictures, max_epochs=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        name
        for when in ("epoch_0002_step_0000008", "epoch_0004_step_0000016")
        for name in (f"{when}.png", f"strip_{when}.png", f"states_{when}.gif")
    )
    assert [drawn[:4] for drawn in model.drawn] == [(5, 7, "preview", 2)] * 2
    assert trainer.callback_metrics["preview/seconds"] > 0


@pytest.mark.parametrize("ema_first", [True, False])
def test_averaged_weights_draw_whatever_the_order_of_callbacks(tmp_path, ema_first):
    preview, ema = Preview(tmp_path, n=4), EMA(Decay(0.9))
    model, _ = fit(tmp_path, *([ema, preview] if ema_first else [preview, ema]), max_epochs=1)
    averaged = next(iter(ema.first.values())).item()
    assert model.drawn[0][-1] == averaged != model.weight.item()
    expected = normal(0, "preview", torch.arange(4), (1, 8, 8)) * averaged
    written = np.asarray(Image.open(next(tmp_path.glob("epoch_*.png"))))
    np.testing.assert_array_equal(written, images.grid(images.to_uint8(expected))[0])


def test_global_random_state_is_left_alone(tmp_path):
    logger = TensorBoard(tmp_path)
    grid = images.grid(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    show([logger], "preview", images.write_png(tmp_path / "grid.png", grid), step=3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


def test_the_strip_and_the_gif_end_with_the_images_of_the_grid(tmp_path):
    model, _ = fit(tmp_path, Preview(tmp_path, n=10, sampler={"steps": 3}), max_epochs=1)
    assert len(model.drawn) == 1  # once for all three
    grid, strip = (pixels(next(tmp_path.glob(name)))[..., 0] for name in ("epoch_*.png", "strip_*.png"))
    cell = 58  # 8 pixels, seven times as large, and a border
    assert grid.shape == (3 * cell, 4 * cell)
    rows, columns = 5, 4  # the first batch; x_T and 3 steps
    assert strip.shape[1] == columns * cell
    drawn = strip[strip.shape[0] - rows * cell :]
    assert drawn.shape[0] < strip.shape[0]  # a line of text above
    for i in range(rows):
        of_grid = grid[i // 4 * cell :, i % 4 * cell :][:cell, :cell]
        np.testing.assert_array_equal(drawn[i * cell : (i + 1) * cell, -cell:], of_grid)
        assert not np.array_equal(drawn[i * cell : (i + 1) * cell, -2 * cell : -cell], of_grid)
    with Image.open(next(tmp_path.glob("states_*.gif"))) as gif:
        assert gif.n_frames == columns
        gif.seek(columns - 1)
        last = np.asarray(gif.convert("L")).astype(int)
    np.testing.assert_allclose(last[:cell, :cell], grid[:cell, :cell], atol=1)


@pytest.mark.parametrize(("steps", "frames"), [(1, 2), (31, 32), (50, 26), (1000, 31)])
def test_a_gif_has_few_frames_however_many_steps(tmp_path, steps, frames):
    class Still(Painter):
        def sample_batches(self, index, seed, keep, sampler, **_):
            assert keep[-1] == sampler.steps
            shade = torch.arange(len(keep)).reshape(-1, 1, 1, 1, 1) / len(keep)
            yield index, shade.expand(len(keep), len(index), 1, 8, 8)

    pictures = Preview(tmp_path, n=1, sampler={"steps": steps}).draw(Still(), "now")
    with Image.open(pictures["preview/states"]) as gif:
        assert gif.n_frames == frames


def test_a_full_disk_loses_an_image_but_not_the_run(tmp_path, caplog):
    (tmp_path / "samples").write_text("in the way")
    _, trainer = fit(tmp_path, Preview(tmp_path / "samples", n=4), max_epochs=1)
    assert trainer.global_step == 4
    assert "a picture was not written" in caplog.text


class Slow(Pictures):
    def __init__(self, folder, seconds):
        super().__init__(folder)
        self.seconds = seconds

    def draw(self, pl_module, when):
        time.sleep(self.seconds)
        return {}


def test_the_seconds_of_all_images_are_summed(tmp_path):
    _, trainer = fit(tmp_path, Slow(tmp_path, 0.2), Slow(tmp_path, 0.4), max_epochs=1)
    assert 0.6 <= trainer.callback_metrics["preview/seconds"] < 0.8


# The section of sampling

LABELLED = ["schedule.T=20", "prediction=v", "sampler=ddim", "sampler.steps=4", "guidance.scale=2"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.ckpt"
    return checkpoint.load(random_model(path, *LABELLED, classes=["zero", "one", "two", "three"]))


def preview(folder, model, **section):
    pictures = Preview(folder, **section)
    pictures.check(model)
    pictures.draw(model, "now")


@pytest.mark.parametrize(
    ("section", "same"),
    [
        ({}, {"y": [0, 1, 2, 3, 0, 1]}),
        ({"y": "[three,one]"}, {"y": [3, 1] * 3}),
        ({"y": "two", "guidance": {"scale": 5.0}}, {"y": 2, "guidance": ClassifierFree(5.0)}),
        ({"y": "two", "clipping": {"_target_": "diffusion.clipping.Unclipped"}}, {"y": 2, "clip": Unclipped()}),
        ({"y": "two", "seed": 4, "sampler": {"steps": 2}}, {"y": 2, "seed": 4, "sampler": DDIM(steps=2)}),
    ],
)
def test_it_samples_as_the_section_specifies(section, same, tmp_path, labelled, monkeypatch):
    drawn = []
    grid = images.grid
    monkeypatch.setattr(images, "grid", lambda cells, *a, **b: drawn.append(cells) or grid(cells, *a, **b))
    preview(tmp_path, labelled, n=6, **section)
    index = torch.arange(6)
    [(_, states)] = labelled.sample_batches(index, purpose="preview", progress=False, **same)
    expected = images.to_uint8(states[-1]).int()
    order = [0, 2, 4, 1, 3, 5] if section.get("y", "").startswith("[") else range(6)
    assert abs(drawn[0].int() - expected[[*order]]).max() <= 1


def test_conditions_asked_for_are_written_beside_their_rows(tmp_path, labelled, monkeypatch):
    names = []
    grid = images.grid
    monkeypatch.setattr(images, "grid", lambda *a, names_=names, **b: names_.append(b.get("names")) or grid(*a, **b))
    preview(tmp_path, labelled, n=6, y="[three,one]")
    assert names[0] == ["three", "one"]


@pytest.mark.parametrize(
    ("section", "given", "message"),
    [
        ({"y": "seven"}, [], r"^callbacks\.preview\.y=seven: "),
        (
            {"sampler": {"steps": 30}},
            ["callbacks.preview.sampler.steps"],
            r"^callbacks\.preview\.sampler\.steps=30: expected 1 to 20",
        ),
        (
            {"sampler": {"order": 1}},
            [],
            r"^callbacks\.preview\.sampler\.order: the model's own sampler has no such key",
        ),
        (
            {"guidance": {"of": "sigma"}},
            ["callbacks.preview.guidance.of"],
            r"^callbacks\.preview\.guidance\.of has no effect: ",
        ),
        ({"guidance": {"_target_": "diffusion.guidance.Auto"}}, [], "needs a weaker model, but has none"),
    ],
)
def test_an_invalid_section_is_reported_before_training(section, given, message, tmp_path, labelled):
    with pytest.raises(UserError, match=message):
        Preview(tmp_path, n=4, **section).check(labelled, ["guidance.of", *given], "callbacks.preview.")


def test_a_training_samples_as_its_section_specifies_and_its_checkpoint_omits_it(tmp_path, capsys):
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(tmp_path / "a=b,c.png")
    section = [
        "y=[3,5]",
        "guidance.scale=3",
        "clipping=none",
        "seed=1",
        "task=img2img",
        f"task.image={tmp_path}/a=b,c.png",
    ]
    line = tiny("conditioning=label", "trainer.max_steps=1", f"run.dir={tmp_path / 'run'}", "schedule.T=20")
    done = command("train", *line, *(f"callbacks.preview.{word}" for word in section), capsys=capsys)
    assert done.code == 0, done.err
    [grid] = (done.folder / "samples").glob("epoch_*.png")
    assert pixels(grid).shape[0] == 2 * 58
    assert checkpoint.load(done.folder).config.keys().isdisjoint(registry.WIRING)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "callbacks.preview.guidance.scale=3",
            "error: callbacks.preview.guidance.scale has no effect: guidance needs a class",
        ),
        ("callbacks.preview.y=3", "error: callbacks.preview.y=3: this model was trained without classes"),
        ("callbacks.preview.task=img2img", "error: callbacks.preview.task.image is missing"),
        (
            "callbacks.preview.sampler.steps=0",
            "error: callbacks.preview.sampler.steps=0: expected a whole number, 1 or more, or null",
        ),
    ],
)
def test_a_mistake_in_the_section_is_one_line_before_there_is_a_run(word, message, tmp_path, capsys):
    key = word.partition("=")[0]
    line = [other for other in tiny(f"run.dir={tmp_path / 'run'}") if not other.startswith(f"{key}=")]
    done = command("train", *line, word, capsys=capsys)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "run").exists()
