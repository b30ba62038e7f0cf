"""A set of 3x8x12 floats of very different scales, end to end, by the commands: what no picture could be."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import diffusion
from diffusion.runs import checkpoint
from tests.helpers.commands import command
from tests.helpers.fields import MEANS, SCALES, fields, write
from tests.test_kill import forking

pytestmark = pytest.mark.filterwarnings("ignore")
WORDS = [
    *("dataset=arrays", "network=unet_tiny", "network.widths=[8,16]", "dataset.batch_size=50", "optimizer.lr=4e-3"),
    *(
        "prediction=v",
        "schedule=cosine",
        "ema.decay=0.98",
        "callbacks.preview.n=3",
        "callbacks.preview.sampler.steps=2",
    ),
    *("optimizer.warmup_steps=30", "validate.every_n_epochs=10", "logger=none", "strategy=cpu"),
]


def overrides(*given):
    """Those of a tiny training, and `given`, which win."""
    return list({str(word).partition("=")[0]: str(word) for word in [*WORDS, *given]}.values())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    write(root / "set", train=500, val=60)
    return root


@pytest.fixture(scope="module")
def run(root):
    from diffusion.commands import cli

    line = overrides(f"dataset.path={root / 'set'}", "trainer.max_steps=300", f"run.dir={root / 'run'}")
    assert cli.main("train", line) == 0
    return root / "run"


def test_what_the_data_decide_is_in_the_checkpoint(run, root):
    config = checkpoint.read(checkpoint.find(run))["config"]
    x = np.load(root / "set" / "train" / "x.npy").astype(np.float64)
    assert config["dataset"]["shape"] == [3, 8, 12]
    np.testing.assert_allclose(config["space"]["mean"], x.mean((0, 2, 3)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(config["space"]["std"], x.std((0, 2, 3)), rtol=1e-9)
    assert config["clipping"]["_target_"].endswith("Unclipped")


def test_previews_are_images(run):
    for name in "epoch_*.png", "strip_*.png", "x_0_*.png", "states_*.gif":
        files = sorted((run / "samples").glob(name))
        assert files
        with Image.open(files[-1]) as picture:
            assert np.asarray(picture.convert("RGB")).std() > 10


def test_samples_come_back_in_the_datas_units(run, tmp_path, capsys):
    line = [f"ckpt={run}", "sampler=ddim", "sampler.steps=20", f"output={tmp_path / 'out'}", "keep=3", "npz=true"]
    for n in 100, 200:  # the second goes on with the first
        done = command("sample", *line, f"n={n}", "batch_size=100", capsys=capsys)
        assert done.code == 0, done.err
    with np.load(tmp_path / "out" / "samples.npz") as file:
        x = file["arr_0"]
    assert (x.shape, x.dtype) == ((200, 3, 8, 12), np.float32)
    for i in 0, 150:
        assert np.array_equal(np.load(tmp_path / "out" / "arrays" / f"{i:06d}.npy"), x[i])
        assert Image.open(tmp_path / "out" / "images" / f"{i:06d}.png").size == (12, 8)
    assert {"grid.png", "strip.png", "states.gif"} <= {file.name for file in (tmp_path / "out").iterdir()}
    real = fields(500, seed=9)
    np.testing.assert_allclose((x.mean((0, 2, 3)) - MEANS) / SCALES, 0, atol=0.15)
    np.testing.assert_allclose(x.std((0, 2, 3)), real.std((0, 2, 3)), rtol=0.25)
    alike = [np.corrcoef(each[:, 1, 2, 3], each[:, 1, 2, 4])[0, 1] for each in (x, real)]
    assert alike[0] == pytest.approx(alike[1], abs=0.2)
    model = diffusion.load(run)
    x_0 = model.sample(4, seed=0, sampler=_ddim(), progress=False)
    error = np.abs(model.space.decode(x_0).numpy() - x[:4]) / SCALES[:, None, None]
    assert error.max() < 1e-2  # of other batches


def _ddim():
    from diffusion.samplers.ddim import DDIM

    return DDIM(steps=20)


def test_the_bound_is_a_density_in_the_datas_units(run, capsys, tmp_path):
    done = command("evaluate", f"ckpt={run}", "metric.bpd.steps=50", f"output={tmp_path}", capsys=capsys)
    assert done.code == 0, done.err
    assert "bits/dim of a density in the data's units" in done.out
    assert "clipping none" in done.out
    row = json.loads((tmp_path / "results.jsonl").read_text())
    independent = 0.5 * np.log2(2 * np.pi * np.e) + np.log2(SCALES).mean()  # of numbers that say nothing of each other
    assert -1.5 < row["value"] - independent < 0.5


def test_killed_and_resumed_it_takes_the_same_steps(root, tmp_path):
    line = overrides(
        f"dataset.path={root / 'set'}", "trainer.max_steps=40", "checkpoints.every_n_steps=4", "callbacks.preview.n=0"
    )
    with forking(tmp_path / "log") as train:
        assert train(*line, f"run.dir={tmp_path / 'whole'}") == 0
        codes = [train(*line, f"run.dir={tmp_path / 'killed'}", "resume=auto", seconds=s) for s in (1.5, 1, 0.5, None)]
    assert -9 in codes
    assert codes[-1] == 0
    whole, killed = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "killed")
    )
    for part in "state_dict", "ema_state_dict":
        assert all(torch.equal(value, killed[part][name]) for name, value in whole[part].items())
    assert whole["config"]["space"] == killed["config"]["space"]


def test_a_resumed_run_keeps_its_statistics_when_rows_are_added(root, tmp_path, capsys):
    line, spaces = ["callbacks.preview.n=0", f"run.dir={tmp_path / 'run'}", "resume=auto"], []
    for steps, folder in (2, root / "set"), (4, write(tmp_path / "more", train=600, val=60)):
        line = overrides(*line, f"dataset.path={folder}", f"trainer.max_steps={steps}")
        done = command("train", *line, capsys=capsys)
        assert done.code == 0, done.err
        spaces.append(checkpoint.read(checkpoint.find(tmp_path / "run"))["config"]["space"])
    assert spaces[0] == spaces[1]


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_what_is_stored_is_not_rounded_before_it_is_encoded(precision, root, tmp_path, monkeypatch):
    from diffusion import spaces
    from diffusion.commands import cli

    seen, encode = [], spaces.standardized.Standardized.encode
    monkeypatch.setattr(
        spaces.standardized.Standardized, "encode", lambda self, x: (seen.append(x.dtype), encode(self, x))[1]
    )
    line = overrides(
        f"dataset.path={root / 'set'}", "trainer.max_steps=1", f"run.dir={tmp_path}", "callbacks.preview.n=0"
    )
    assert cli.main("train", [*line, f"trainer.precision={precision}"]) == 0
    assert {*seen} == {torch.float32}


@pytest.mark.parametrize(
    "choices",
    [
        ("loss=hybrid",),
        ("loss=vlb", "sampler.variance=learned"),
        ("self_conditioning=true",),
        ("network=unet_lucid", "network.width=8", "network.multiples=[1,2]", "network.full_attention=[false,true]"),
        ("prediction=edm", "prediction.sigma_data=1"),
    ],
)
def test_other_choices_work_as_well(choices, root, tmp_path, capsys):
    line = overrides(*choices, f"dataset.path={root / 'set'}", f"run.dir={tmp_path / 'run'}", "trainer.max_steps=2")
    if "network=unet_lucid" in choices:
        line.remove("network.widths=[8,16]")
    done = command("train", *line, capsys=capsys)
    assert done.code == 0, done.err
    done = command("sample", f"ckpt={tmp_path / 'run'}", "n=2", "sampler=ddim", "sampler.steps=2", capsys=capsys)
    assert done.code == 0, done.err


def test_tasks_take_arrays_in_the_datas_units(run, root, tmp_path, capsys):
    x = np.load(root / "set" / "val" / "x.npy")
    for i in 0, 1:
        np.save(tmp_path / f"{i}.npy", x[i])
    Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 6, 1).repeat(8, 0)).save(tmp_path / "mask.png")
    short = [f"ckpt={run}", "n=2"]
    image = f"task.image={tmp_path / '0.npy'}"
    for number, task in enumerate(
        (
            ["task=img2img", image],
            ["task=inpaint", image, f"task.mask={tmp_path / 'mask.png'}"],
            ["task=interpolate", f"task.start={tmp_path / '0.npy'}", f"task.end={tmp_path / '1.npy'}", "task.points=2"],
        )
    ):
        out = tmp_path / str(number)
        done = command("sample", *short, "sampler=ddim", "sampler.steps=5", *task, f"output={out}", capsys=capsys)
        assert done.code == 0, done.err
        if "task=inpaint" in task:  # the left half is kept
            kept = np.load(out / "arrays" / "000000.npy")[:, :, :6]
            np.testing.assert_allclose(kept, x[0][:, :, :6], atol=2e-3 * SCALES.max(), rtol=1e-4)
    done = command("compare", *short, "steps=[2]", "samplers=[ddim]", capsys=capsys)
    assert done.code == 0, done.err


LINES = [
    (["train", "space=pixels"], "stores torch.float32, but its space takes uint8 in 0..255"),
    (["train", "clipping=static"], "clipping=static clips x_0 to bounds, but this space has none: set clipping=none"),
    (["train", "clipping=dynamic"], "which are not the bounds of this space: set clipping=none"),
    (["train", "space.mean=[1,2]"], "space.mean=[1.0, 2.0]: expected a finite number for each of the 3 channels"),
    (["train", "space.std=[1,2,-3]"], "each a number, 0 or more, or null"),
    (["train", "dataset.shape=[3,8,8]"], "dataset.shape is (3, 8, 8)"),
    (["train", "network.attention=[8,12]"], "attention at [12] is impossible: at size 8x12"),
    (["train", "network.widths=[8,8,8,8]"], "8x12 does not divide by 8"),
    (["sample", "clipping=static"], "clipping=static clips x_0 to bounds"),
    (["sample", "task=img2img", "task.image={root}/set"], "expected an array of shape (3, 8, 12)"),
    (["sample", "task=img2img", "task.image={root}/set/train/x.npy"], "has the shape (500, 3, 8, 12)"),
    (["sample", "task=img2img", "task.image={root}/set/no.npy"], "is missing"),
]


@pytest.mark.parametrize(("line", "message"), LINES, ids=[" ".join(line) for line, _ in LINES])
def test_a_mistake_is_one_line(line, message, run, root, tmp_path, capsys):
    name, *given = (word.format(root=root) for word in line)
    if name == "train":
        given = overrides(f"dataset.path={root / 'set'}", f"run.root={tmp_path}", *given)
    else:
        given += [f"ckpt={run}", f"output={tmp_path / 'out'}"]
    done = command(name, *given, capsys=capsys)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_it_is_exported_with_its_statistics_or_refused(run, tmp_path, capsys):
    done = command("convert", f"ckpt={run}", "to=diffusers", f"output={tmp_path / 'x'}", capsys=capsys)
    assert done.code == 2
    assert "to=diffusers: a DDPMPipeline draws square 8-bit pictures, not Standardized of (3, 8, 12)" in done.err
    file, ckpt = tmp_path / "x.safetensors", tmp_path / "x.ckpt"
    assert command("convert", f"ckpt={run}", "to=safetensors", f"output={file}", capsys=capsys).code == 0
    done = command("convert", f"from={file}", f"output={ckpt}", capsys=capsys)
    assert done.code == 0, done.err
    assert "dataset=arrays space=standardized" in done.out
    assert diffusion.load(ckpt).space == diffusion.load(run).space
