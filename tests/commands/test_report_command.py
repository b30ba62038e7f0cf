"""`report.py`: runs with and without their key, one file, and mistakes in one line."""

import json

import pytest

from diffusion.commands import cli
from diffusion.commands.completion import candidates
from diffusion.report import page
from diffusion.runs import compose as configs
from tests.helpers.commands import command, tiny
from tests.helpers.run_folder import run_folder

pytestmark = pytest.mark.filterwarnings("ignore")
ODD = [
    "runs/epoch=9",
    "my runs/a,b",
    "{a}[b](c)",
    "größe/Übung 数",
    "a'b\"c,d",
    "${x}/y",
    "a;b#c\\d%",
    "[a]",
    '"a"',
    "1",
]


@pytest.fixture
def report(capsys):
    return lambda *words: command("report", *words, capsys=capsys)


def test_a_run_gets_its_report(report, tmp_path):
    run = run_folder(tmp_path / "run")
    done = report(run)
    assert done.code == 0, done.err
    assert done.folder == run / "report.html"
    assert done.out.splitlines() == [str(run / "report.html")]
    assert report(f"runs=[{run}]").folder == run / "report.html"
    assert cli.run("report", str(run)) == run / "report.html"


def test_output_names_the_file(report, tmp_path):
    runs = [run_folder(tmp_path / name) for name in ("a", "b")]
    assert report(*runs, f"output={tmp_path}/both.html").folder == tmp_path / "both.html"
    assert (tmp_path / "both.html").exists()


def test_words_without_a_key_are_taken_as_they_are():
    overrides = configs.keyed("report", [*ODD, "output=x.html"])
    config = configs.compose("report", overrides)
    assert list(config.runs) == ODD
    assert config.output == "x.html"
    assert list(configs.compose("report", ['runs=[a, "b,c",1]']).runs) == ["a", "b,c", "1"]
    assert configs.keyed("train", ["seed", "a=1"]) == ["seed", "a=1"]  # has no such key


def test_a_path_is_completed_without_the_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "rows").touch()
    assert candidates("report", "python report.py r") == ["runs=", "rows", "runs/"]
    assert candidates("train", "python train.py ro") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "error: runs is missing: set runs=..."),
        ("{place}/missing", "error: {place}/missing: no such folder; expected a run folder"),
        (
            "{place}/empty",
            "error: {place}/empty: no manifest.json (No such file or directory); expected a run folder *",
        ),
        ("{place}/file", "error: {place}/file: a file; expected a run folder"),
        ("{place}/run {place}/run/", "error: {place}/run: this run is given twice: give it once"),
        ("{place}/run {place}/empty/../run", "error: {place}/empty/../run: this run is given twice: give it once"),
        ("{place}/run runs=[{place}/run]", "error: runs is given twice: give it once"),
        ("{place}/damaged", "error: {place}/damaged/manifest.json: not a manifest of this program (*"),
        ("{place}/run output={place}/x.txt", "error: output={place}/x.txt: expected a file NAME.html"),
        ("{place}/run output={place}/file/x.html", "error: {place}/file/x.html: cannot be written (*"),
        ("runs={place}/run", "error: runs={place}/run: expected a list such as [a,b], each a path, at least 1 of them"),
        ("runs=[]", "error: runs=[]: expected a list such as [a,b], each a path, at least 1 of them"),
        ("{place}/run outptu=x", "error: outptu: no such key; did you mean output?"),
        ("{place}/run ckpt=x", "error: ckpt=x: belongs to *"),
    ],
)
def test_a_mistake_is_one_line(line, message, report, tmp_path):
    run_folder(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text(json.dumps({"config": 3}))
    done = report(*line.format(place=tmp_path).split())
    assert done.code == 2
    [said] = done.err.splitlines()
    start, star, _ = message.format(place=tmp_path).partition("*")
    assert said.startswith(start) if star else said == start


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
