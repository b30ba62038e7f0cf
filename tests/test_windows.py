"""The commands with what is refused on Windows: handles of files, and characters."""

import io
import sys

import pytest

from diffusion.commands import cli
from tests.helpers import windows
from tests.helpers.commands import command, tiny


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the imitation looks into /proc")
def test_every_command_writes_what_it_has_to(tmp_path, monkeypatch, capsys):
    windows.imitate(monkeypatch)
    run = tmp_path / "run"
    given = [f"run.dir={run}", "resume=auto", "checkpoints.keep=1", "ema=power", "ema.snapshots=2"]
    for limit in "trainer.max_steps=3", "trainer.max_steps=6":
        assert command("train", *tiny(*given, limit), capsys=capsys).code == 0
    [kept] = (run / "checkpoints").glob("step_*.ckpt")
    assert kept.stem == "step_0000006"
    for name, *message in (
        ("sample", "n=2", "sampler.steps=2", "npz=true", "keep=all"),
        ("sample", "n=3", "sampler.steps=2", "npz=true", "keep=all"),  # goes on in the same folder
        ("evaluate", "metric.bpd.n=2", "metric.bpd.steps=2"),
        ("convert", "to=safetensors"),
        ("convert", "to=diffusers"),
    ):
        output = [f"output={tmp_path / 'drawn'}"] if name == "sample" else []
        done = command(name, f"ckpt={run}", *message, *output, capsys=capsys)
        assert done.code == 0, done.err
        assert done.folder.exists()
    assert not [file for file in tmp_path.rglob("*") if file.name.endswith(".tmp")]


def test_a_name_that_the_terminal_cannot_show_is_no_error(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    assert cli.main("train", ["run.name=犬 größe", "--print"]) == 0
    sys.stdout.flush()
    assert r"name: \u72ac größe" in written.getvalue().decode("cp1252")
