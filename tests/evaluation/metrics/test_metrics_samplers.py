"""metric=samplers, as it is used: the table, its files, the loggers of the run, and what is not measured twice."""

import csv
import json

import pytest

from diffusion.evaluation.metrics import samplers
from diffusion.evaluation.metrics.samplers import Cell, recommended, table
from tests.helpers.commands import command, tiny
from tests.helpers.offline_wandb import read_offline_runs

pytestmark = pytest.mark.filterwarnings("ignore")
ASKED = [
    *("metric=samplers", "features@metric.samplers.features=pixels", "metric.samplers.n=128"),
    *('metric.samplers.samplers=[ddim,heun,"dpm_solver_pp stochastic=true"]', "metric.samplers.nfe=[2,5]"),
]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given = tiny("trainer.max_steps=1", "callbacks.preview.n=0", "schedule.T=20", f"run.dir={tmp_path}/run")
    given = [word for word in given if word != "logger=none"]
    done = command("train", *given, "logger=wandb", "logger.wandb.mode=offline", capsys=capsys)
    assert done.code == 0, done.err
    return tmp_path / "run"


def test_the_table_the_picture_and_the_recommendation(run, capsys, monkeypatch):
    done = command("evaluate", f"ckpt={run}", *ASKED, capsys=capsys)
    assert done.code == 0, done.err
    [row] = [json.loads(line) for line in done.folder.read_text().splitlines()]
    assert [(each["sampler"], each["nfe"]) for each in row["cells"]] == [
        (name, nfe) for name in ("ddim", "heun", "dpm_solver_pp stochastic=true") for nfe in (2, 5)
    ]
    assert row["value"] == min(each["distance"] for each in row["cells"])
    assert row["recommended"].startswith("python sample.py ckpt=RUN sampler=")
    with open(done.folder.with_name("samplers.csv"), newline="") as file:
        assert [float(each["distance"]) for each in csv.DictReader(file)] == [each["distance"] for each in row["cells"]]
    assert row["recommended"] in done.folder.with_name("samplers.md").read_text()
    assert done.folder.with_name(row["figure"]).exists()

    *_, last = read_offline_runs(run)
    assert last.id == (run / "wandb_run_id").read_text()
    assert last.values("evaluation/samplers") == [row["value"]]
    [shown] = last.files("evaluation/samplers/table")
    assert json.loads(shown.read_text())["data"] == [[*each.values()] for each in row["cells"]]
    assert len(last.files("evaluation/samplers/figure")) == 1

    def nothing(*_, **__):
        raise AssertionError("a cell is measured twice")

    monkeypatch.setattr(samplers, "Comparison", nothing)
    again = command("evaluate", f"ckpt={run}", *ASKED, "log=false", capsys=capsys)
    assert again.code == 0, again.err
    assert "measured before" in again.out
    assert len(read_offline_runs(run)) == 2  # training and the first evaluation


def test_the_recommended_cell_is_the_quickest_that_is_about_as_good_as_the_best():
    cells = [Cell("a", 10, 4.1, 1.0), Cell("a", 50, 4.0, 5.0), Cell("b", 10, 4.3, 0.5)]
    assert recommended(cells) == cells[0]
    assert table(cells).splitlines()[2:] == ["| a | 4.1 (1 s) | 4 (5 s) |", "| b | 4.3 (0.5 s) |  |"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("metric.samplers.samplers=[dim]", "dim: no such sampler"),
        ('metric.samplers.samplers=["ddim order=2"]', "ddim has no order"),
        ("metric.samplers.n=100", "expected at least twice the 64 features"),
    ],
)
def test_mistakes_are_one_line(run, override, message, capsys):
    kept = [word for word in ASKED if not word.startswith(override.partition("=")[0])]
    done = command("evaluate", f"ckpt={run}", *kept, override, capsys=capsys)
    assert done.code != 0
    assert message in done.err
    assert "Traceback" not in done.err
