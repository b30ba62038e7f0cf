"""What a training says when it begins."""

import sys

import pytest

from tests.helpers.commands import command, tiny

pytestmark = pytest.mark.filterwarnings("ignore")


def reported(done):
    """The lines by their keys."""
    assert done.code == 0, done.err
    pairs = [line.split("  ", 1) for line in done.out.splitlines() if "  " in line]
    return {key: line.strip() for key, line in pairs}


def test_the_plan_is_printed(tmp_path, capsys):
    line = tiny("trainer.max_steps=2", "conditioning=label", "prediction=v", f"run.dir={tmp_path / 'run'}")
    lines = reported(command("train", *line, capsys=capsys))
    assert lines["data"] == "digits: 1,500 images of 1x8x8 to train on, 32 to validate, 10 classes"
    assert lines["model"].startswith("UNet, 0.0")
    assert lines["model"].endswith("M parameters, given label")
    assert lines["process"] == "linear schedule of 1000 steps; the network predicts v, loss L2"
    assert lines["training"] == "128 images a batch; precision 32-true on 1 x cpu"
    assert lines["run folder"] == str(tmp_path / "run")
    assert lines["ends"] == "at step 2; a time estimate follows after the first steps"
    assert lines["pictures"] == "first after epoch 1, and at the end"


def test_the_plan_of_a_resumed_run_covers_the_rest(tmp_path, capsys):
    line = tiny("trainer.max_minutes=30", "callbacks.preview.every_n_steps=3", f"run.dir={tmp_path / 'run'}")
    assert reported(command("train", *line, "trainer.max_steps=1", capsys=capsys))["pictures"].startswith(
        "first at step 3"
    )
    lines = reported(command("train", *line, "trainer.max_steps=4", "resume=auto", capsys=capsys))
    assert lines["ends"] == "at step 4 or after 30 minutes, of which 30 are left, whichever is first"
    assert lines["pictures"] == "next at step 3, and at the end"


OWN = """
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import SingleDeviceStrategy
from diffusion.ground import images
from diffusion.training.callbacks.pictures import Pictures

class Weights(Pictures):
    runs_network = True

    def draw(self, pl_module, when):
        weights = next(pl_module.parameters()).detach().reshape(1, 1, -1)
        return {"weights": images.write_png(self.folder / f"weights_{when}.png", images.to_uint8(weights))}

class Counts(Callback):
    def __init__(self, seed, every):
        self.seed, self.every = seed, every

    def on_train_end(self, trainer, pl_module):
        print("counted", trainer.global_step, self.seed, self.every)

class Numbers(CSVLogger):
    def __init__(self, save_dir):
        super().__init__(save_dir, name="own")

class Alone(SingleDeviceStrategy):
    def __init__(self, device="cpu"):
        super().__init__(device)
"""
YAMLS = {
    "callbacks/own.yaml": "weights:\n  _target_: my_parts.Weights\ncounts:\n  _target_: my_parts.Counts\n  every: 2",
    "logger/own.yaml": "numbers:\n  _target_: my_parts.Numbers",
    "strategy/own.yaml": "_target_: my_parts.Alone\naccelerator: cpu\ndevices: 1\nnum_nodes: 1\ndevice: cpu",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(OWN)
    for name, text in YAMLS.items():
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / name).write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("DIFFUSION_CONFIG_DIR", str(tmp_path / "conf"))
    yield
    sys.modules.pop("my_parts", None)


def test_callbacks_loggers_and_a_strategy_of_ones_own(own, tmp_path, capsys):
    parts = ["callbacks=[default,own]", "logger=own", "callbacks.predictions=null", "callbacks.counts.every=5"]
    parts += ["strategy=own", "trainer.max_steps=2", "seed=3", f"run.dir={tmp_path / 'run'}"]
    done = command("train", *tiny(*parts), capsys=capsys)
    assert reported(done)["no pictures"] == "Numbers shows numbers only; the pictures are in the run folder"
    assert "counted 2 3 5" in done.out
    names = {file.name.partition("epoch_")[0] for file in (tmp_path / "run" / "samples").iterdir()}
    assert names == {"", "data.png", "loss_", "states_", "strip_", "weights_"}
    assert (tmp_path / "run" / "own" / "version_0" / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("group", "text", "reported"),
    [
        ("callbacks", "x:\n  _target_: my_parts.Numbers", "which is no lightning.pytorch.Callback: it is not built"),
        ("logger", "x:\n  _target_: my_parts.Counts", "which is no lightning.pytorch.loggers.Logger"),
        ("callbacks", "x:\n  _target_: my_parts.Counts", "my_parts.Counts: missing a required argument"),
        ("callbacks", "x:\n  _target_: my_parts.Counts\n  ever: 1", "callbacks.x.ever: my_parts.Counts takes no ever"),
    ],
)
def test_what_is_of_another_kind_is_one_line_before_there_is_a_run(own, tmp_path, capsys, group, text, reported):
    for file in (tmp_path / "conf").glob("*/own.yaml"):
        file.unlink()
    (tmp_path / "conf" / group / "wrong.yaml").write_text(text)
    chosen = "callbacks=[default,wrong]" if group == "callbacks" else f"{group}=wrong"
    done = command("train", *tiny(chosen, "trainer.max_steps=1", f"run.dir={tmp_path / 'run'}"), capsys=capsys)
    assert done.code == 2
    assert reported in done.err
    assert not (tmp_path / "run").exists()
