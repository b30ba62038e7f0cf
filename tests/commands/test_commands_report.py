"""`report.py`: runs with and without their key, one file, and mistakes in one line."""

import json

import pytest

from diffusion.commands import cli
from diffusion.commands.completion import candidates
from diffusion.runs import compose as configs
from tests.helpers.commands import command
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
    return lambda *arguments: command("report", *arguments, capsys=capsys)


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


def test_arguments_without_a_key_are_taken_literally():
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
        ("{root}/missing", "error: {root}/missing: no such folder; expected a run folder"),
        (
            "{root}/empty",
            "error: {root}/empty: no manifest.json (No such file or directory); expected a run folder *",
        ),
        ("{root}/file", "error: {root}/file: a file; expected a run folder"),
        ("{root}/run {root}/run/", "error: {root}/run: this run is given twice: give it once"),
        ("{root}/run {root}/empty/../run", "error: {root}/empty/../run: this run is given twice: give it once"),
        ("{root}/run runs=[{root}/run]", "error: runs is given twice: give it once"),
        ("{root}/damaged", "error: {root}/damaged/manifest.json: not a manifest of this program (*"),
        ("{root}/run output={root}/x.txt", "error: output={root}/x.txt: expected a file NAME.html"),
        ("{root}/run output={root}/file/x.html", "error: {root}/file/x.html: cannot be written (*"),
        ("runs={root}/run", "error: runs={root}/run: expected a list such as [a,b], each a path, at least 1 of them"),
        ("runs=[]", "error: runs=[]: expected a list such as [a,b], each a path, at least 1 of them"),
        ("{root}/run outptu=x", "error: outptu: no such key; did you mean output?"),
        ("{root}/run ckpt=x", "error: ckpt=x: belongs to *"),
    ],
)
def test_a_mistake_is_one_line(line, message, report, tmp_path):
    run_folder(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text(json.dumps({"config": 3}))
    done = report(*line.format(root=tmp_path).split())
    assert done.code == 2
    [reported] = done.err.splitlines()
    start, star, _ = message.format(root=tmp_path).partition("*")
    assert reported.startswith(start) if star else reported == start
