"""Shell completion: what may follow a line, and that a shell really asks for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion.commands.completion import candidates

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("command", "line", "expected"),
    [
        ("train", "python train.py samp", ["sampler.", "sampler="]),
        ("train", "python train.py sampler=dd", ["sampler=ddim", "sampler=ddpm"]),
        ("train", "python train.py seed=1 ema=power ema.", ["ema.sigma_rel=", "ema.snapshots="]),
        ("train", "python train.py ema.", ["ema.decay="]),
        ("train", "python train.py callbacks.pre", ["callbacks.predictions.", "callbacks.preview."]),
        ("sample", "python sample.py ckpt=x task=in", ["task=inpaint", "task=interpolate"]),
        ("sample", "python sample.py ckpt=x guidance=auto guidance.ck", ["guidance.ckpt="]),
        ("evaluate", "python evaluate.py met", ["metric.", "metric="]),
        ("sample", "python sample.py --mu", ["--multirun"]),
        ("train", "python train.py seed=", []),
        ("train", "python train.py nothing_like_it", []),
        (
            "train",
            "python train.py run.name='open quote se",
            ["seed=", "self_conditioning=", "self_conditioning_clipping="],
        ),
        (None, "python -m diffusion e", ["evaluate"]),
        (None, "python -m diffusion evaluate met", ["metric.", "metric="]),
    ],
)
def test_what_may_follow(command, line, expected):
    assert candidates(command, line) == expected


def test_files_follow_a_key_that_takes_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pixels.txt").touch()
    expected = ["dataset.path=pictures/", "dataset.path=pixels.txt"]
    assert candidates("train", "python train.py dataset.path=pi") == expected
    assert candidates("train", "python train.py run.name=pi") == [
        word.replace("dataset.path", "run.name") for word in expected
    ]


def bash(line):
    """What bash would offer at the end of a line."""
    run = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
    script = subprocess.run([sys.executable, "train.py", "-sc", "install=bash"], **run).stdout
    typed = f"COMP_LINE='{line}'\nCOMP_POINT=${{#COMP_LINE}}\n"
    ask = f"{script}\n{typed}_diffusion_complete\n" + 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    return subprocess.run(["bash", "-c", ask], env=path, **run).stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_groups_choices_and_keys():
    """It splits words at = itself, so that only what follows is offered."""
    assert bash("python train.py samp") == ["sampler.", "sampler="]
    assert bash("python train.py sampler=dd") == ["ddim", "ddpm"]
    assert bash("python -m diffusion sample ckp") == ["ckpt="]
    assert bash("python other.py samp") == []
