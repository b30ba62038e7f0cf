"""callbacks=quality: a distance of sample images during training, within its share of the time."""

import csv
import os
import re
import subprocess
import sys

import pytest

from diffusion.training.callbacks import quality
from tests.helpers.commands import command, tiny
from tests.helpers.two_processes import ROOT

OVERRIDES = [
    *("callbacks=quality", "callbacks.preview.n=0", "callbacks.floor.n=0"),
    *("callbacks.quality.n=64", "callbacks.quality.sampler.steps=2"),
    *("features@callbacks.quality.features=pixels", "trainer.max_epochs=3"),
]


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda *more: command("train", *tiny(*OVERRIDES, f"run.dir={tmp_path}/run", *more), capsys=capsys)


def _logged(folder, name):
    with open(folder / "metrics.csv", newline="") as file:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}


def test_it_is_measured_at_each_validation_where_the_share_allows_and_best_follows_it(train):
    done = train("callbacks.quality.share=0.99", "checkpoints.monitor=val/mind", "checkpoints.keep=9")
    assert done.code == 0, done.err
    values = _logged(done.folder, "val/mind")
    assert len(values) == 3
    best = min(values, key=lambda step: values[step])
    assert (done.folder / "checkpoints" / "best.ckpt").samefile(done.folder / f"checkpoints/step_{best + 1:07d}.ckpt")
    assert len(re.findall(r"val/mind [\d.]+ at step \d+: 64 images of 2 steps in [\d.]+ s; [\d.]+% of", done.out)) == 3


def test_a_small_share_leaves_the_measurement_at_the_end_of_the_run(train):
    done = train("callbacks.quality.share=1e-6", "callbacks.quality.metric=kid")
    assert done.code == 0, done.err
    assert len(_logged(done.folder, "val/kid")) == 1
    assert max(_logged(done.folder, "val/kid")) == max(_logged(done.folder, "val/loss"))


def test_the_share_bounds_the_time_of_all_measurements(train, monkeypatch):
    """By a clock on which drawing takes 10 seconds, and each validation comes 100 seconds after the last."""
    now = [0.0]
    monkeypatch.setattr(quality.time, "monotonic", lambda: now[0])
    draw, due = quality.Quality._drawn, quality.Quality._due

    def slow(self, trainer):
        now[0] += 10
        return draw(self, trainer)

    def later(self, trainer):
        now[0] += 100
        return due(self, trainer)

    monkeypatch.setattr(quality.Quality, "_drawn", slow)
    monkeypatch.setattr(quality.Quality, "_due", later)
    done = train("callbacks.quality.share=0.05", "trainer.max_epochs=8")
    assert done.code == 0, done.err
    assert 2 <= len(_logged(done.folder, "val/mind")) <= 0.05 * 8 * 100 / 10


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("callbacks.quality.metric=fd", r"fewer than twice the \d+ features"),
        (
            "checkpoints.monitor=val/los",
            r"checkpoints\.monitor=val/los: a validation does not measure it, but .*val/loss",
        ),
        ("checkpoints.monitor=val/fd", r"checkpoints\.monitor=val/fd: a validation does not measure it"),
        ("callbacks.quality.metric=bpd", r"callbacks\.quality\.metric"),
    ],
)
def test_mistakes_are_one_line(train, override, message):
    done = train(override)
    assert done.code != 0
    assert re.search(message, done.err), done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_the_value_is_the_same_for_two_processes(tmp_path):
    """With a learning rate that leaves the weights as they are; 63 images do not divide by two."""
    values = []
    for strategy in ("cpu", "ddp_cpu"):
        overrides = [*OVERRIDES, f"strategy={strategy}", "callbacks.quality.n=63", "optimizer.lr=1e-12"]
        run = tmp_path / strategy
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
        subprocess.run(
            [sys.executable, ROOT / "train.py", *tiny(*overrides, f"run.dir={run}")],
            check=True, capture_output=True, timeout=120, env=environment,
        )  # fmt: skip
        values.append([*_logged(run, "val/mind").values()][-1])
    assert values[0] == pytest.approx(values[1], rel=1e-5)
