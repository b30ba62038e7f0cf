"""Mistakes with files and folders, by the commands themselves: one line, exit code 2, no traceback, nothing left over.

Those of the words alone are in test_cli.py.
"""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.commands import command, words

pytestmark = pytest.mark.filterwarnings("ignore")
ODD = "epoch=9, größe 数"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of things to stumble over, a trained run among them."""
    place = tmp_path_factory.mktemp("place")
    (place / "empty").mkdir()
    (place / "notes").mkdir()
    (place / "notes" / "a.txt").write_text("no picture")
    (place / "broken").mkdir()
    for k in range(3):
        (place / "broken" / f"{k}.png").write_bytes(b"")
    (place / "floats").mkdir()
    for k in range(3):
        Image.fromarray(np.eye(8, dtype=np.float32) / (k + 1)).save(place / "floats" / f"{k}.tif")
    (place / "file").write_text("a file")
    (place / "run without checkpoints" / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, place / "other.ckpt")
    torch.save(torch.nn.Linear(1, 1), place / "module.ckpt")
    (place / f"{ODD}.ckpt").write_bytes(b"nothing")
    return place


@pytest.fixture(scope="module")
def run(place):
    from diffusion.commands import cli

    assert cli.main("train", words("trainer.max_steps=1", "callbacks.preview.n=0", f"run.dir={place / 'run'}")) == 0
    return place / "run"


def train(*given):
    return ["train", *words("trainer.max_steps=1", "run.root={place}/new", *given)]


def folder(*given):
    return ["train", "dataset=image_folder", "network=unet_tiny", "logger=none", "dataset.size=8", *given]


LINES = [
    (["sample", "ckpt={place}/missing"], "no such file or run folder"),
    (["sample", "ckpt={place}/{odd}"], "no such file or run folder"),
    (["sample", "ckpt={place}/{odd}.ckpt"], "{odd}.ckpt: not a readable checkpoint"),
    (["sample", "ckpt={place}/empty"], "expected a run folder that train.py wrote"),
    (["sample", "ckpt={place}/run without checkpoints"], "expected a run folder that train.py wrote"),
    (["sample", "ckpt={place}/run/best/last"], "no such file or run folder"),
    (["sample", "ckpt={place}/run", "guidance.scale=3"], "guidance leads towards a class: say y=..."),
    (["sample", "ckpt={place}/other.ckpt"], "not a checkpoint of this program"),
    (["sample", "ckpt={place}/module.ckpt"], "not a readable checkpoint"),
    (["sample", "ckpt={place}/file"], "not a readable checkpoint"),
    (["sample", "ckpt={place}/run", "weights=half_life_5"], "has ema, raw"),
    (["sample", "ckpt={place}/run", "accelerator=abacus"], "no such device here"),
    (["sample", "ckpt={place}/run", "sampler.steps=5000"], "sampler.steps=5000"),
    (["sample", "ckpt={place}/run", "keep=5000"], "keep=5000: expected 1 to 1001"),
    (["sample", "ckpt={place}/run", "sampler=ddim", "keep=every:52"], "keep=every:52: expected 1 to 51"),
    (["sample", "ckpt={place}/run", "sampler.variance=learned"], "this network predicts no variance; use fixed_small"),
    (["sample", "ckpt={place}/run", "y=3"], "trained without classes"),
    (["sample", "ckpt={place}/run", "output={place}/file"], "is a file: expected a folder"),
    (["sample", "ckpt={place}/run", "output={place}/file/below"], "cannot be written"),
    (["sample", "ckpt={place}/run", "output={place}/notes"], "is no folder of samples"),
    (train("resume={place}/missing"), "no such file or run folder"),
    (train("resume={place}/other.ckpt"), "not a checkpoint of this program"),
    (train("resume={place}/empty"), "expected a run folder"),
    (train("sampler.variance=learned"), "this network predicts no variance"),
    (
        train("callbacks.preview.sampler=ddpm", "callbacks.preview.sampler.variance=learned"),
        "this network predicts no variance",
    ),
    (train("resume=auto"), "of which run? Say run.name="),
    (train("run.name=../x"), "run.name=../x: expected the name of a folder; a path is said by run.dir="),
    (train("run.name=a/b"), "run.name=a/b: expected the name of a folder"),
    (train("run.name=.."), "run.name=..: expected the name of a folder"),
    (train("resume=auto", "resume_mode=weights"), "from which checkpoint? Say resume=RUN"),
    (train("resume_mode=some"), "expected full or weights"),
    (train("rerun={place}/empty"), "no manifest.json"),
    (train("run.dir={place}/run"), "exists: resume=auto continues this run"),
    (train("run.dir={place}/notes"), "exists: resume=auto continues this run"),
    (train("run.dir={place}/file/below"), "cannot be written"),
    (
        train("schedule.T=20", "callbacks.preview.sampler.steps=50"),
        "error: callbacks.preview.sampler.steps=50: expected 1 to 20",
    ),
    (train("schedule.T=20", "sampler.steps=21"), "error: sampler.steps=21: expected 1 to 20"),
    (
        train("schedule.T=20", "callbacks.preview.sampler.times=[30,0]"),
        "error: callbacks.preview.sampler.times=[30.0, 0.0]: expected times",
    ),
    (train("strategy.accelerator=abacus"), "abacus"),
    (train("strategy=gpu"), "gpu"),
    (train("network.attention=[3]"), "3"),
    (train("network.patch=3"), "3"),
    (train("dataset.batch_size=5000"), "more than the 1500 training images"),
    (train("checkpoints.keep=0"), "checkpoints.keep=0: expected a whole number, 1 or more"),
    (train("checkpoints.every_n_minutes=0"), "expected a number above 0, or null"),
    (train("validate.every_n_minutes=0"), "expected a number above 0, or null"),
    (train("callbacks.preview.every_n_epochs=0"), "expected a whole number, 1 or more, or null"),
    (train("trainer.val_every_n_epochs=3"), "is called validate.every_n_epochs now; say validate.every_n_epochs=3"),
    (train("trainer.max_skipped=0"), "expected a whole number, 1 or more"),
    (folder("dataset.path={place}/missing"), "is not a folder"),
    (folder("dataset.path={place}/missing", "run.dir={place}/empty"), "is not a folder"),
    (folder("dataset.path={place}/empty"), "has no images: 0 files seen"),
    (folder("dataset.path={place}/notes"), "has no images: 1 files seen"),
    (folder("dataset.path={place}/broken", "dataset.cache={place}/cache"), "0 of 3 images can be read"),
    (folder("dataset.path={place}/broken", "dataset.cache={place}/file/x"), "cannot be kept in"),
    (folder("dataset.path={place}/floats", "dataset.cache={place}/cache"), "set dataset.range=auto or [low,high]"),
]


@pytest.mark.parametrize(("line", "said"), LINES, ids=[" ".join(line[-2:]) for line, _ in LINES])
def test_a_mistake_is_one_line(line, said, place, run, capsys):
    before = sorted(place.rglob("*"))
    line = [word.format(place=place, odd=ODD) for word in line]
    done = command(*line, capsys=capsys)
    assert done.code == 2
    [told] = [told for told in done.err.splitlines() if told.startswith("error: ")]
    assert said.format(odd=ODD) in told
    assert "Traceback" not in done.err
    assert not (place / "new").exists()
    left = {path.relative_to(place).parts[0] for path in {*place.rglob("*")} - {*before}}
    assert left <= {"cache"}


def test_a_checkpoint_may_be_called_anything(run, tmp_path, capsys):
    path = tmp_path / ODD / f"{ODD}.ckpt"
    path.parent.mkdir()
    shutil.copy(run / "checkpoints" / "last.ckpt", path)
    done = command("sample", f"ckpt={path}", "n=2", "sampler.steps=2", f"output={tmp_path / 'out, ='}", capsys=capsys)
    assert done.code == 0, done.err
    assert len(list(done.folder.glob("images/*"))) == 2


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_damaged_description_of_samples_is_refused(run, tmp_path, text, capsys):
    (tmp_path / "samples.json").write_text(text)
    done = command("sample", f"ckpt={run}", f"output={tmp_path}", capsys=capsys)
    assert done.code == 2
    assert "samples.json: not a description of samples" in done.err


def test_samples_of_two_models_never_share_a_folder(run, tmp_path, capsys):
    ours = tmp_path / "run"
    shutil.copytree(run, ours)
    line = ["sample", f"ckpt={ours}", "weights=raw", "sampler.steps=2", f"output={tmp_path / 'out'}"]
    assert command(*line, "n=1", capsys=capsys).code == 0
    assert command(*line, "n=2", capsys=capsys).code == 0
    newest = (ours / "checkpoints" / "last.ckpt").resolve()
    contents = torch.load(newest, weights_only=True)
    next(iter(contents["state_dict"].values())).view(-1)[0] += 1  # the same file, trained on
    newest.unlink()
    for name in (newest, ours / "checkpoints" / "last.ckpt"):
        torch.save(contents, name)
    done = command(*line, "n=3", capsys=capsys)
    assert done.code == 2
    assert "holds samples of another weights_sha256" in done.err
    described = tmp_path / "out" / "samples.json"
    described.write_text(described.read_text().replace("weights_sha256", "other"))  # of before it was recorded
    done = command(*line, "n=3", capsys=capsys)
    assert done.code == 2
    assert "without a record of their weights_sha256" in done.err


def test_interrupted_sampling_goes_on_where_it_was(run, tmp_path, capsys, monkeypatch):
    from diffusion.ground import images

    line = ["sample", f"ckpt={run}", "sampler=ddim", "sampler.steps=2", "n=7", "batch_size=2", "npz=true"]
    whole = command(*line, f"output={tmp_path / 'whole'}", capsys=capsys).folder
    write, drawn = images.write_png, []

    def interrupted(path, image):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(path.name)
        return write(path, image)

    with monkeypatch.context() as patch:
        patch.setattr(images, "write_png", interrupted)
        assert command(*line, f"output={tmp_path / 'cut'}", capsys=capsys).code == 130
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut" / "images").iterdir()}
    assert len(kept) == 3
    cut = command(*line, f"output={tmp_path / 'cut'}", capsys=capsys).folder
    assert all((cut / "images" / name).stat().st_mtime_ns == stamp for name, stamp in kept.items())
    for k in range(7):
        one, two = (np.asarray(Image.open(made / "images" / f"{k:06d}.png")).astype(int) for made in (whole, cut))
        assert abs(one - two).max() <= 1  # matrix products of another batch size round differently
    stored = np.load(cut / "samples.npz")["arr_0"]
    assert (stored.shape, stored.dtype) == ((7, 8, 8, 1), np.uint8)
    assert np.array_equal(stored[6, ..., 0], np.asarray(Image.open(cut / "images" / "000006.png")))
