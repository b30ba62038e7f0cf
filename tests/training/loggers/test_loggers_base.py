"""Which loggers are built, and what all of them show."""

import json
import subprocess
import sys

import pytest
from lightning.pytorch.loggers import CSVLogger

from diffusion.ground.errors import UserError
from diffusion.runs.compose import compose
from diffusion.training.loggers.base import Shows, build_loggers, of_numbers_alone
from diffusion.training.loggers.metrics_file import MetricsFile
from diffusion.training.loggers.tensorboard import TensorBoard
from diffusion.training.loggers.wandb import Wandb
from tests.helpers.loggers import CONFIG, loggers_of
from tests.helpers.offline_wandb import read_offline_runs


def test_other_choices(tmp_path, monkeypatch):
    for name in ("csv", "none"):
        (only,) = loggers_of(tmp_path, name)
        assert isinstance(only, MetricsFile)
    _, board = loggers_of(tmp_path, "tensorboard")
    assert isinstance(board, TensorBoard)
    assert board.log_dir.rstrip("/") == str(tmp_path / "tensorboard")
    with pytest.raises(UserError, match=r"names 'mlflow\.MLFlow', which no file of conf/ names"):
        build_loggers({"mlflow": {"_target_": "mlflow.MLFlow"}}, tmp_path, "a run", CONFIG)

    def missing(*_, **__):
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr("lightning.pytorch.loggers.TensorBoardLogger.__init__", missing)
    with pytest.raises(UserError, match="pip install tensorboard"):
        loggers_of(tmp_path, "tensorboard")


def test_two_at_once_and_only_those_chosen_are_imported(tmp_path):
    nodes = compose("train", ["logger=[wandb,tensorboard]", "logger.wandb.mode=offline"]).logger
    loggers = build_loggers(nodes, tmp_path, "a run", CONFIG)
    assert [type(logger) for logger in loggers] == [MetricsFile, Wandb, TensorBoard]
    assert compose("train", ["logger=[wandb,tensorboard]", "logger.wandb=null"]).logger.keys() == {"tensorboard"}
    code = "from diffusion.commands import train; import sys; print('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_logger_without_images_is_named(tmp_path):
    foreign = CSVLogger(tmp_path)
    assert all(isinstance(logger, Shows) for logger in loggers_of(tmp_path, "wandb", "tensorboard"))
    assert of_numbers_alone([MetricsFile(tmp_path), foreign]) == ["CSVLogger"]


def test_every_logger_shows_a_table(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for logger in loggers_of(tmp_path, "wandb", "tensorboard"):
        logger.table("val/scores", ["name", "score"], [["a", 1.5], ["b", 2]], step=7)
        logger.finalize("success")
    assert (tmp_path / "tables/val/scores_step_0000007.csv").read_text() == "name,score\na,1.5\nb,2\n"
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    [event] = events.Tensors("val/scores/text_summary")
    assert event.step == 7
    assert event.tensor_proto.string_val[0].decode().splitlines()[2] == "| a | 1.5 |"
    (run,) = read_offline_runs(tmp_path)
    [[path]] = [[*(tmp_path / "wandb").glob("offline-run-*/files/media/table/val/*.json")]]
    assert json.loads(path.read_text())["data"] == [["a", 1.5], ["b", 2]]
    assert run.id == (tmp_path / "wandb_run_id").read_text()
