"""`convert.py`: what it makes is taken by the other commands, and nothing is overwritten."""

import shlex
import subprocess
import sys
from pathlib import Path

import diffusers
import pytest
import torch

from diffusion.ground import images
from diffusion.runs import checkpoint
from tests.helpers.commands import command, tiny

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A folder of a DDPMPipeline for grey images of 8x8, with a schedule that has a name of ours."""
    folder = tmp_path_factory.mktemp("theirs") / "ddpm digits"
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="fixed_large")
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(folder)
    return folder


@pytest.fixture
def ckpt(theirs, tmp_path, capsys):
    done = command("convert", f"from={theirs}", f"output={tmp_path / 'made.ckpt'}", capsys=capsys)
    assert (done.code, done.err) == (0, "")
    return done.folder


def test_what_it_makes_can_be_sampled_and_evaluated(ckpt, tmp_path, capsys):
    done = command("sample", f"ckpt={ckpt}", "n=2", "sampler.steps=2", capsys=capsys)
    assert done.code == 0
    assert len(list((done.folder / "images").glob("*.png"))) == 2
    _write_pictures(tmp_path / "pictures")
    overrides = [f"dataset.path={tmp_path / 'pictures'}", "metric.bpd.n=2", "metric.bpd.steps=2"]
    assert command("evaluate", f"ckpt={ckpt}", *overrides, capsys=capsys).code == 0


def test_the_printed_overrides_resume_training(theirs, tmp_path, capsys):
    done = command("convert", f"from={theirs}", f"output={tmp_path / 'my model.ckpt'}", capsys=capsys)
    line = done.out.splitlines()[-2]
    printed = shlex.split(line[line.index("python train.py ") :])[2:]
    assert {"schedule=cosine", "sampler.variance=fixed_large", "network.widths=[8,16]"} < set(printed)
    _write_pictures(tmp_path / "pictures")
    printed = [word.replace("FOLDER", str(tmp_path / "pictures")) for word in printed]
    printed += [
        "trainer.max_steps=1",
        "optimizer.lr=1e-9",
        "dataset.batch_size=8",
        "callbacks.preview.n=0",
        "logger=none",
    ]
    printed += ["strategy=cpu", f"run.root={tmp_path}", f"dataset.cache={tmp_path}"]
    done = command("train", *printed, capsys=capsys)
    assert done.code == 0, done.err
    before, after = checkpoint.load(tmp_path / "my model.ckpt"), checkpoint.load(done.folder, "raw")
    for name, weight in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], weight, atol=1e-7, rtol=0)
    same = ("network", "schedule", "prediction", "loss", "weighting", "clipping", "sampler")
    assert {key: after.config[key] for key in same} == {key: before.config[key] for key in same}


def _write_pictures(folder):
    folder.mkdir()
    for k in range(40):  # of which 2 are for validation
        images.write_png(folder / f"{k}.png", torch.full((1, 8, 8), 6 * k, dtype=torch.uint8))


@pytest.mark.parametrize(("to", "name"), [("diffusers", "diffusers"), ("safetensors", "model.safetensors")])
def test_the_other_way_with_either_weights(to, name, tmp_path, capsys):
    run = command("train", *tiny(f"run.dir={tmp_path / 'run'}", "trainer.max_steps=3"), capsys=capsys).folder
    done = command("convert", f"ckpt={run}", f"to={to}", capsys=capsys)
    assert (done.code, done.folder) == (0, run / "converted" / name)
    again = command("convert", f"ckpt={run}", f"to={to}", capsys=capsys)
    assert (again.code, again.err) == (2, f"error: {done.folder} exists: choose another output=\n")
    raw = command("convert", f"ckpt={run}", f"to={to}", "weights=raw", f"output={tmp_path / name}", capsys=capsys)
    for made, which in (done.folder, "ema"), (raw.folder, "raw"):
        back = command("convert", f"from={made}", f"output={tmp_path / which}.ckpt", capsys=capsys)
        assert back.code == 0, back.err
        network, expected = (checkpoint.load(ckpt, which).denoiser.network for ckpt in (back.folder, run))
        assert all(torch.equal(network.state_dict()[name], weight) for name, weight in expected.state_dict().items())


def test_the_script_writes_onnx(ckpt, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "convert.py", f"ckpt={ckpt}", "to=onnx"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'converted' / 'model.onnx'}\n"
    assert (tmp_path / "converted" / "model.onnx").exists()


def test_the_checkpoint_is_named_after_the_folder(theirs, capsys):
    done = command("convert", f"from={theirs}", capsys=capsys)
    assert done.folder == theirs.with_name("ddpm digits.ckpt")
    assert (
        command("convert", f"from={theirs}", capsys=capsys).err
        == f"error: {done.folder} exists: choose another output=\n"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "expected either from=FOLDER_OR_FILE (of another program), or ckpt=RUN to=diffusers|onnx|safetensors"),
        (["from=a", "ckpt=b"], "expected either from=FOLDER_OR_FILE"),
        (["from=a", "to=onnx"], "to= and weights= belong to ckpt="),
        (["from=a", "weights=raw"], "to= and weights= belong to ckpt="),
        (["ckpt=a"], "to is missing: set to=diffusers, onnx, safetensors"),
        (["from=nowhere"], "from=nowhere: no such file or folder"),
        (["ckpt=nowhere", "to=onnx"], "ckpt=nowhere: no such file or run folder"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(given, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = command("convert", *given, capsys=capsys)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith(f"error: {message}")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["diffusers", "onnx", "safetensors"])
def test_where_nothing_can_be_written(ckpt, to, tmp_path, capsys):
    (tmp_path / "file").touch()
    done = command("convert", f"ckpt={ckpt}", f"to={to}", f"output={tmp_path / 'file' / 'made'}", capsys=capsys)
    assert done.code == 2
    assert "cannot be written" in done.err
