"""The progress line: its numbers, its end, and that it asks the device for nothing between two lines."""

import io
import re
import sys

import pytest
import torch
from lightning.pytorch import Trainer

from diffusion.training.cadence import Cadence
from diffusion.training.callbacks import progress
from diffusion.training.callbacks.progress import Progress
from diffusion.training.callbacks.validations import Validations
from tests.helpers.learner import Learner


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Every(Progress):
    """Shows a line at every step."""

    def on_train_start(self, trainer, pl_module):
        super().on_train_start(trainer, pl_module)
        self._every = 0.0


def fit(bar, model=None, checkpoint=None, **options) -> Trainer:
    trainer = Trainer(
        accelerator="cpu", callbacks=[bar], logger=False, enable_model_summary=False, enable_checkpointing=False,
        **options,
    )  # fmt: skip
    trainer.fit(model or Learner(), ckpt_path=checkpoint)
    return trainer


@pytest.fixture
def log(capsys):
    """What was written to stderr since it was last asked for: the lines of progress, and all of it."""

    def read() -> list[str]:
        written = capsys.readouterr().err
        assert "\r" not in written
        assert "\x1b" not in written
        return [line for line in written.splitlines() if re.search(r"step/s|images/s", line)]

    return read


def test_without_a_terminal_it_writes_plain_lines(log):
    fit(Every(), max_epochs=2)
    lines = log()
    shown = [re.search(r"(\d+)/(\d+) ", line).groups() for line in lines[:-1]]
    assert shown[:8] == [(str(n), "8") for n in range(1, 9)]
    assert re.search(r"step/s, loss 1, epoch 1, [\d,]+ images/s\]", lines[0])
    assert re.search(r"step/s, loss 0\.\d+, val/loss 0\.125, epoch 2, [\d,]+ images/s\]", lines[-2])
    assert re.fullmatch(r"trained 8 steps, 24 images, 0\.\d minutes, [\d,]+ images/s", lines[-1])


def test_by_default_lines_are_half_a_minute_apart(log, monkeypatch):
    now = [0.0]

    def clock():
        now[0] += 0.5  # each look at the clock takes a while
        return now[0]

    monkeypatch.setattr(progress.time, "monotonic", clock)
    fit(Progress(), max_epochs=50)
    assert 5 < len(log()) <= now[0] / 30 + 3  # the first, the last and the totals come in between


def test_on_a_terminal_it_stays_on_one_line(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "70")
    fit(Every(), max_epochs=2)
    bar, end, rest = stream.getvalue().split("\n")
    assert bar.count("\r") >= 8
    assert max(map(len, bar.split("\r"))) < 70  # a wrapped line could not be overwritten
    assert "validating" in bar
    assert "100%" in bar.split("\r")[-1]
    assert "8/8" in bar.split("\r")[-1]
    assert end.startswith("trained 8 steps")
    assert rest == ""


def test_metrics_are_read_only_for_a_line(log, monkeypatch):
    reads = []
    metrics = Trainer.progress_bar_metrics
    monkeypatch.setattr(Trainer, "progress_bar_metrics", property(lambda self: reads.append(1) or metrics.fget(self)))
    fit(Progress(), max_epochs=20)
    assert len(reads) == 2  # the first step's and the last


def test_a_resumed_run_counts_on(log, tmp_path):
    class Resumed(Every):
        state_key = Progress().state_key

    trainer = fit(Progress(), max_steps=3)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    log()
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["Progress"]["seconds"] > 0
    fit(Resumed(), max_steps=8, checkpoint=tmp_path / "last.ckpt")
    first, *_, last = log()
    assert " 4/8 " in first
    assert last.startswith("trained 8 steps, 24 images")


def test_nothing_left_to_train_is_no_error(log, tmp_path):
    trainer = fit(Progress(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fit(Progress(), max_epochs=1, checkpoint=tmp_path / "last.ckpt")
    assert log()[-1].startswith("trained 4 steps, 12 images")


def test_accumulated_batches_are_images_but_not_steps(log):
    fit(Progress(), max_epochs=2, accumulate_grad_batches=2)
    assert log()[-1].startswith("trained 4 steps, 24 images")


def test_time_left_is_that_of_the_nearer_limit(log):
    fit(Every(), Learner(0.02), max_steps=10**6, max_time={"seconds": 1.5}, limit_val_batches=0)
    *lines, _ = log()
    assert len(lines) > 10
    assert {re.search(r"<([\d:?]+)", line).group(1) for line in lines} == {"00:01", "00:00"}
    totals = [int(re.search(r"/(\d+) ", line).group(1)) for line in lines[5:]]
    assert all(10 < total <= 76 for total in totals)  # 1.5 s at 50 step/s at most
    fit(Every(), Learner(), max_steps=20, max_time={"hours": 1}, limit_val_batches=0)
    *lines, _ = log()
    assert len(lines) >= 20
    assert all("/20 " in line for line in lines)


@pytest.mark.parametrize(
    ("validate", "preview", "message"),
    [
        (Cadence(), Cadence(), r", pictures in 0[1-9]:\d\d\]"),
        (Cadence(every_n_steps=1), Cadence(every_n_minutes=90), r", pictures in 1:(30:00|29:5\d)\]"),
        (Cadence(every_n_steps=2), Cadence(), r"images/s\]"),
        (Cadence(), Cadence(every_n_epochs=2), r"images/s\]"),
    ],
)
def test_it_reports_when_images_are_due_by_time(log, validate, preview, message):
    class Costly(Learner):
        def on_validation_end(self):
            when._mark -= 30  # as if it had taken half a minute

    when = Validations(validate, preview)
    bar = Every()
    trainer = Trainer(
        accelerator="cpu", callbacks=[when, bar], logger=False, enable_model_summary=False, max_steps=3,
        enable_checkpointing=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Costly())
    *_, second, third, last, _ = log()
    assert re.search(message, second), second
    assert "pictures" not in third + last  # of those at the end nothing need be said


def test_an_exception_ends_the_line(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)

    class Broken(Learner):
        def validation_step(self, batch, batch_idx):
            raise RuntimeError("broke")

    with pytest.raises(RuntimeError, match="broke"):
        fit(Every(), Broken(), max_epochs=1, num_sanity_val_steps=0)
    assert stream.getvalue().endswith("\n")
    assert "trained" not in stream.getvalue()


def test_other_ranks_are_silent(log):
    bar = Every()
    bar.disable()
    fit(bar, max_epochs=1)
    assert log() == []
