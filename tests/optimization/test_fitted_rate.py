"""The learning rate is fitted into the run, whatever limit ends it."""

import csv
import json
import math
import shutil
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Timer
from torch import nn

from diffusion.optimization.lr_schedule import Constant, CosineDecay
from diffusion.optimization.optimizers import AdamW
from tests.helpers.commands import command, renamed, tiny

FIXTURES = Path(__file__).parent.parent / "fixtures" / "format_0"

pytestmark = pytest.mark.filterwarnings("ignore")


class Clock(Timer):
    """What the learning rate sees of a trainer, and of its timer: a step takes `pace` seconds."""

    def __init__(self, minutes=None, counted=math.inf, pace=1.0, step=0, offset=0.0):
        super().__init__(minutes and timedelta(minutes=minutes))
        self.load_state_dict({"time_elapsed": {"train": offset}})
        self.estimated_stepping_batches, self.global_step, self.pace, self.first = counted, step, pace, step
        self.callbacks, self.strategy = [self], SimpleNamespace(broadcast=lambda value: value)

    def time_elapsed(self, stage="train"):
        return self._offset + self.pace * (self.global_step - self.first)

    def run(self, rate, steps):
        """The rates of the next optimiser steps."""
        rate.begin(self)
        rates = []
        for _ in range(steps):
            rates.append(rate.optimizer.param_groups[0]["lr"])
            rate.optimizer.step()
            self.global_step += 1
            rate.estimate(self)
            rate.step()
        return rates


def rate_of(state=None, **options):
    _, rate = AdamW(**{"lr": 1.0, "warmup_steps": 0, "decay": CosineDecay()} | options).build(
        [nn.Parameter(torch.zeros(1))]
    )
    if state:
        rate.load_state_dict(state)
    return rate


def test_minutes_are_turned_into_steps_once():
    rate, trainer = rate_of(), Clock(minutes=10)
    rates = trainer.run(rate, 60)
    assert rates == [1] * 60, "nothing is known before a tenth of the time is over"
    assert rate.end == 570
    trainer.pace = 0.5  # it gets faster: the rate has reached its end, and stays there
    rates += trainer.run(rate, 600)
    assert rates[60:] == [CosineDecay()(step, 570) for step in range(60, 660)]
    assert rates[-90:] == [0] * 90


@pytest.mark.parametrize(("minutes", "counted", "end"), [(10, 50, 50), (10, 100_000, 570), (None, 80, 80)])
def test_the_nearest_limit_counts(minutes, counted, end):
    rate = rate_of()
    rates = Clock(minutes, counted).run(rate, end)
    assert rate.end == end
    assert rates[end // 2 :] == [CosineDecay()(step, end) for step in range(end // 2, end)]


@pytest.mark.parametrize("stop", [10, 60, 61, 300])
def test_a_resumed_run_takes_the_rates_of_an_uninterrupted_one(stop):
    expected = Clock(minutes=10).run(rate_of(warmup_steps=400), 620)
    first, trainer = rate_of(warmup_steps=400), Clock(minutes=10)
    rates = trainer.run(first, stop)
    again = Clock(minutes=10, step=stop, offset=stop, pace=1.0 if stop < 60 else 3.0)  # on a slower machine
    assert rates + again.run(rate_of(first.state_dict(), warmup_steps=400), 620 - stop) == expected


@pytest.fixture
def caplog(caplog):
    caplog.set_level("INFO", "lightning.pytorch")
    return caplog


def test_a_warm_up_longer_than_the_time_is_shortened(caplog):
    rates = Clock(minutes=10).run(rate_of(warmup_steps=5000, decay=Constant()), 400)
    assert rates[59] == 60 / 5000
    assert rates[60] == 61 / 285
    assert rates[284:] == [1] * 116
    assert "a warm-up of 5,000 steps is shortened to 285, since the run takes 570" in caplog.text


def test_a_changed_time_limit_is_reported(caplog):
    rate, trainer = rate_of(), Clock(minutes=10)
    trainer.run(rate, 600)
    assert "learning rate: fitted to 570 steps, about what trainer.max_minutes=10 allow" in caplog.text
    more = rate_of(rate.state_dict())
    rates = Clock(minutes=20, step=600, offset=600).run(more, 2)
    assert "learning rate: fitted to 570 -> 1,140 steps, about what trainer.max_minutes=20" in caplog.text
    assert rates == [CosineDecay()(step, 1140) for step in (600, 601)]


def test_minutes_that_begin_in_the_middle_of_a_run():
    """It was trained by a number of steps before: no time was counted then."""
    rate, trainer = rate_of(), Clock(counted=1000)
    trainer.run(rate, 1000)
    timed = rate_of(rate.state_dict())
    Clock(minutes=10, step=1000).run(timed, 70)
    assert timed.end == 1570


def test_settings_independent_of_the_end_are_not_reported(caplog):
    Clock(minutes=10).run(rate_of(decay=Constant(), warmup_steps=20), 100)
    assert caplog.text == ""


def test_the_estimate_is_that_of_the_first_process():
    rate, trainer = rate_of(), Clock(minutes=10, pace=2.0)
    trainer.strategy.broadcast = lambda allowed: 777 if allowed else 0
    trainer.run(rate, 40)
    assert rate.end == 777


def lr_of(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return {int(row["step"]): float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]}


@pytest.fixture
def train(tmp_path, capsys):
    def run(*given):
        short = (
            "callbacks.preview.n=0",
            "optimizer.warmup_steps=2",
            "lr_schedule=cosine",
            "trainer.log_every_n_steps=1",
        )
        return command("train", *tiny(*short, f"run.dir={tmp_path / 'run'}", *given), capsys=capsys)

    return run


@pytest.mark.parametrize(
    "limits",
    [
        ["trainer.max_steps=6"],
        ["trainer.max_epochs=2", "dataset.batch_size=500"],  # three batches each
        ["trainer.max_epochs=2", "dataset.batch_size=300", "trainer.accumulate=2"],  # five
        ["trainer.max_epochs=9", "dataset.batch_size=500", "trainer.max_steps=6"],
    ],
)
def test_a_cosine_ends_with_the_run(limits, train):
    done = train(*limits)
    expected = [1e-3 * AdamW(warmup_steps=2, decay=CosineDecay()).factor(step, 6) for step in range(6)]
    assert lr_of(done.folder) == pytest.approx(dict(enumerate(expected)), rel=1e-6)


def test_minutes_by_the_command_and_from_one_of_its_checkpoints(train, monkeypatch, tmp_path):
    """Twelve seconds, half a second a step."""

    def on_train_start(timer, trainer, _):
        timer.trainer = trainer

    monkeypatch.setattr(Timer, "trainer", SimpleNamespace(global_step=0), raising=False)
    monkeypatch.setattr(Timer, "on_train_start", on_train_start)
    monkeypatch.setattr(Timer, "time_elapsed", lambda timer, stage="train": timer.trainer.global_step / 2)
    given = ["trainer.max_minutes=0.2", "checkpoints.every_n_steps=9", "checkpoints.keep=9"]
    whole = train(*given).folder
    rates = lr_of(whole)
    assert list(rates) == [*range(24)]
    assert rates[2] == pytest.approx(1e-3, rel=1e-6)
    assert rates[23] < 0.01 * 1e-3
    resumed = train(*given, f"resume={whole}/checkpoints/step_0000009.ckpt", f"run.dir={tmp_path / 'more'}").folder
    assert lr_of(resumed) == {step: lr for step, lr in rates.items() if step >= 9}


def test_a_fall_without_an_end_is_refused(train, tmp_path):
    done = train("trainer.max_steps=null")
    assert done.code == 2
    assert "lr_schedule=cosine decays until the end of the run, but the run has no limit: set trainer." in done.err
    assert not (tmp_path / "run").exists()


def resume_of_format_0(name, *given, tmp_path, monkeypatch, capsys):
    """What a fixture's run does next when it is told `given`, and nothing of the learning rate's end."""
    folder = tmp_path / "run"
    shutil.copytree(FIXTURES / name, folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    began = renamed(json.loads((folder / "expected.json").read_text())["words"])
    given = {word.partition("=")[0]: word for word in [*began, *given]}
    given.pop("lr_schedule.steps", None)
    done = command("train", *given.values(), f"run.dir={folder}", "resume=auto", capsys=capsys)
    assert done.code == 0, done.err
    return done


def test_an_old_run_keeps_the_end_that_it_was_given(tmp_path, monkeypatch, capsys):
    done = resume_of_format_0("folder", tmp_path=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert "lr_schedule.steps=100, as in the first session" in done.out
    plan = AdamW(warmup_steps=4, decay=CosineDecay(steps=100))
    expected = {step: 1e-3 * plan.factor(step) for step in range(3, 8)}
    assert lr_of(done.folder) == pytest.approx(expected, rel=1e-6)


def test_an_old_run_whose_cosine_ended_with_max_steps_ends_with_other_max_steps(tmp_path, monkeypatch, capsys):
    """And its warm-up is not shortened, though it is longer than half of the run."""
    overrides = ["trainer.max_steps=10", "optimizer.warmup_steps=9"]
    done = resume_of_format_0("digits", *overrides, tmp_path=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert "optimizer.warmup_share=None, as in the first session" in done.out
    plan = AdamW(warmup_steps=9, warmup_share=None, decay=CosineDecay(steps=10))
    assert lr_of(done.folder) == pytest.approx({step: 1e-3 * plan.factor(step) for step in (8, 9)}, rel=1e-6)
