"""A vector condition end to end, by the commands: MNIST whose slant, computed from its pixels, is asked for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d, pad

from tests.helpers.commands import command

ROOT = Path(__file__).parents[2]
MNIST = ROOT.parent / "shared" / "data" / "MNIST"
N = {"train": 4000, "val": 200}
MODEL = [
    *("dataset=arrays", "space=pixels", "conditioning=vector", "network=unet_tiny", "network.widths=[16,32]"),
    "network.attention=[8]",
    *("schedule=cosine", "prediction=v", "timesteps=stratified", "optimizer.lr=2e-3", "ema.decay=0.97"),
    *("logger=none", "strategy=cpu", "callbacks.preview.sampler.steps=5"),
]

pytestmark = pytest.mark.skipif(not MNIST.exists(), reason="needs MNIST in ../shared/data")


def slant(images):
    """Of images (N, H, W), the shear -mu_11 / mu_02 of their ink: 0 for an upright digit, positive to the right."""
    ink = images / images.sum((1, 2), keepdims=True).clip(1)
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    mean_y, mean_x = ((ink * axis).sum((1, 2), keepdims=True) for axis in (y, x))
    return -((ink * (x - mean_x) * (y - mean_y)).sum((1, 2))) / (ink * (y - mean_y) ** 2).sum((1, 2)).clip(1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """x.npy, uint8 (N, 1, 16, 16), and vector.npy, the slant (N, 1)."""
    from torchvision import datasets

    root = tmp_path_factory.mktemp("slant")
    for split, n in N.items():
        images = datasets.MNIST(MNIST.parent, train=split == "train").data[:n, None].float()
        images = pad(avg_pool2d(images, 2), (1, 1, 1, 1)).round().byte().numpy()
        (root / split).mkdir()
        np.save(root / split / "x.npy", images)
        np.save(root / split / "vector.npy", slant(images[:, 0].astype(float))[:, None].astype(np.float32))
    return root


@pytest.mark.slow
def test_the_slant_that_is_asked_for_is_drawn(folder, tmp_path, capsys):
    run = tmp_path / "run"
    line = [*MODEL, f"dataset.path={folder}", "dataset.batch_size=64", "trainer.max_steps=300", "callbacks.preview.n=4"]
    done = command("train", *line, f"run.dir={run}", capsys=capsys)
    assert done.code == 0, done.err
    asked = np.linspace(-0.2, 0.6, 8)
    text = f"[{','.join(f'{value:.3f}' for value in asked)}]"
    overrides = [f"ckpt={run}", "n=64", "sampler=dpm_solver_pp", "sampler.steps=10", f"condition.vector={text}"]
    done = command("sample", *overrides, f"output={tmp_path / 'out'}", capsys=capsys)
    assert done.code == 0, done.err
    drawn = np.stack([np.asarray(Image.open(file)) for file in sorted((done.folder / "images").glob("*.png"))])
    correlation = np.corrcoef(np.resize(asked, 64), slant(drawn.astype(float)))[0, 1]
    assert correlation > 0.5
    guided = command("sample", *overrides, "guidance.scale=2", f"output={tmp_path / 'guided'}", capsys=capsys)
    assert guided.code == 0, guided.err
    measured = command("evaluate", f"ckpt={run}", "metric.bpd.n=20", "metric.bpd.steps=5", capsys=capsys)
    assert measured.code == 0, measured.err


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been_killed(folder, tmp_path, capsys):
    line = [*MODEL, f"dataset.path={folder}", "dataset.batch_size=16", "callbacks.preview.n=0", "trainer.max_steps=60"]
    line += ["checkpoints.every_n_steps=5", "resume=auto", "validate.every_n_epochs=1"]
    killed = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(
        [sys.executable, ROOT / "train.py", *line, f"run.dir={killed}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while not any(killed.glob("checkpoints/step_*.ckpt")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    for run in (killed, tmp_path / "whole"):
        done = command("train", *line, f"run.dir={run}", capsys=capsys)
        assert done.code == 0, done.err
    ends = [torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("killed", "whole")]
    for weights in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(value, ends[1][weights][key]) for key, value in ends[0][weights].items())
    assert ends[0]["config"]["conditioning"] == ends[1]["config"]["conditioning"]


MISTAKES = [
    (["condition.vector=left"], "condition.vector=left: expected 1 finite number, such as [0."),
    (["condition.vector=[[1,2]]"], "expected 1 finite number"),
    (["condition.vector=nan"], "expected 1 finite number"),
    (["condition.vector=[]"], "expected 1 finite number"),
    (["y=3"], "this model was trained without classes"),
    (["condition.label=3"], "this model was trained without"),
    (["guidance.scale=2"], "guidance needs a class"),
]


@pytest.fixture(scope="module")
def small(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("small") / "run"
    line = [*MODEL, f"dataset.path={folder}", "dataset.batch_size=8", "trainer.max_steps=1", "callbacks.preview.n=0"]
    subprocess.run([sys.executable, ROOT / "train.py", *line, f"run.dir={run}"], check=True, capture_output=True)
    return run


@pytest.mark.parametrize(("overrides", "message"), MISTAKES, ids=str)
def test_an_invalid_vector_is_rejected_in_one_line(small, overrides, message, tmp_path, capsys):
    done = command("sample", f"ckpt={small}", "n=1", *overrides, f"output={tmp_path / 'out'}", capsys=capsys)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_set_without_the_column_is_refused(tmp_path, capsys):
    line = ["dataset=digits", *MODEL[1:], f"run.dir={tmp_path / 'run'}"]
    done = command("train", *line, capsys=capsys)
    assert done.code == 2
    assert "conditioning.vector: digits has no column of that name; dataset=arrays reads them" in done.err
