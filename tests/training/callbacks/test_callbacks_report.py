"""A training ends with its report."""

import pytest

from diffusion.report import page
from tests.helpers.commands import command, tiny

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_training_ends_with_its_report(tmp_path, capsys):
    line = tiny("trainer.max_steps=2", "callbacks.predictions=null", f"run.dir={tmp_path / 'run'}")
    done = command("train", *line, capsys=capsys)
    assert done.code == 0, done.err
    text = (done.folder / "report.html").read_text()
    assert "Finished, max_steps=2 reached: 2 steps, 256 images" in text
    assert "val/loss is " in text
    assert " at step 2, " in text


def test_a_report_that_fails_costs_a_line_and_not_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(page, "html", lambda runs: 1 / 0)
    line = tiny("trainer.max_steps=1", "callbacks.preview.n=0", f"run.dir={tmp_path / 'run'}")
    done = command("train", *line, capsys=capsys)
    assert done.code == 0, done.err
    assert "note: no report.html (ZeroDivisionError: division by zero)" in done.err
    assert not (done.folder / "report.html").exists()
