"""metrics.csv, and W&B runs read back from their files. Nothing here uses the network."""

import csv
import json
import random
import resource
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from diffusion.ground.errors import UserError
from diffusion.runs.compose import compose
from diffusion.runs.groups import choice
from diffusion.training.callbacks.preview import Preview
from diffusion.training.loggers.base import Shows, build_loggers, of_numbers_alone
from diffusion.training.loggers.metrics_file import MetricsFile
from diffusion.training.loggers.tensorboard import TensorBoard
from diffusion.training.loggers.wandb import Wandb
from tests.helpers.offline_wandb import read_offline_runs
from tests.helpers.painter import Painter

CONFIG = {"seed": 0, "dataset": {"name": "digits", "batch_size": 4}, "list": [1, 2]}
KEY = "0" * 40


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch, tmp_path):
    """No key, no netrc, no settings, no error reports: as on a fresh machine, and offline."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # whoever calls home anyway finds nobody there
    wandb.teardown()
    yield
    wandb.teardown()


class Dark(Painter):
    """Dark and without contrast: a logger that rescales it shows other pixels."""

    def paint(self, noise):
        return noise * 0.05 - 0.5 + self.global_step / 50


def loggers_of(run_folder, *names, **changes):
    nodes = {key: {**node, **changes} for name in names for key, node in choice("logger", name).items()}
    return build_loggers(nodes, run_folder, "a run", CONFIG)


def train(run_folder, logger="wandb", epochs=2, model=None, checkpoint=None) -> Trainer:
    loggers = loggers_of(run_folder, logger)
    trainer = Trainer(
        accelerator="cpu", callbacks=[Preview(run_folder / "samples", n=4)], logger=loggers, max_epochs=epochs,
        log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model or Dark(), ckpt_path=checkpoint)
    return trainer


def rows(run_folder) -> list[dict[str, str]]:
    with open(run_folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("channels", [1, 3])
def test_wandb_offline_run_holds_loss_config_and_the_pixels_on_disk(tmp_path, channels, capfd):
    train(tmp_path, model=Dark(channels))
    (run,) = read_offline_runs(tmp_path)
    assert run.name == "a run"
    assert run.project == "diffusion"
    assert run.id == (tmp_path / "wandb_run_id").read_text()
    assert {key: run.config[key] for key in CONFIG} == CONFIG
    assert run.step_metrics["*"] == "trainer/global_step"

    steps = [(row["trainer/global_step"], row["train/loss"]) for row in run.history if "train/loss" in row]
    assert [step for step, _ in steps] == list(range(8))
    losses = [float(row["train/loss"]) for row in rows(tmp_path) if row["train/loss"]]
    np.testing.assert_allclose([loss for _, loss in steps], losses)
    assert len(run.values("val/loss")) == len(run.values("preview/seconds")) == 2

    assert [row["trainer/global_step"] for row in run.history if "preview" in row] == [4, 8]
    for name, files in (("preview", "epoch_*.png"), ("preview/strip", "strip_*.png")):
        on_disk = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "samples").glob(files))]
        assert not np.array_equal(*on_disk)
        np.testing.assert_array_equal(run.images(name), on_disk)
    gifs = sorted((tmp_path / "samples").glob("states_*.gif"))
    assert [path.read_bytes() for path in run.files("preview/states")] == [path.read_bytes() for path in gifs]

    out, err = capfd.readouterr()
    assert "wandb:" not in out + err  # no page of greetings, no question
    (line,) = [line for line in out.splitlines() if "wandb sync" in line]
    assert line.endswith(f"wandb sync {tmp_path / 'wandb'}/offline-run-*")
    assert wandb.run is None


def test_resume_appends_to_the_file_and_continues_the_wandb_run(tmp_path):
    trainer = train(tmp_path, epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    first = rows(tmp_path)
    train(tmp_path, epochs=2, checkpoint=tmp_path / "last.ckpt")
    both = rows(tmp_path)
    assert both[: len(first)] == first
    assert [int(row["step"]) for row in both if row["train/loss"]] == list(range(8))
    sessions = read_offline_runs(tmp_path)
    assert len(sessions) == 2
    assert sessions[0].id == sessions[1].id
    assert [session.values("trainer/global_step")[-1] for session in sessions] == [3, 7]  # Lightning counts from 0


def test_new_columns_after_a_resume_keep_old_rows(tmp_path, recwarn):
    first = MetricsFile(tmp_path)
    first.log_metrics({"a": 1.0}, step=0)
    second = MetricsFile(tmp_path)
    second.log_metrics({"a": 2.0, "b": 3.0}, step=1)
    assert rows(tmp_path) == [{"a": "1.0", "b": "", "step": "0"}, {"a": "2.0", "b": "3.0", "step": "1"}]
    assert not recwarn.list


def test_preview_in_wandb_leaves_the_global_random_state_alone(tmp_path, monkeypatch):
    states = []

    def state():
        return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    class Watched(Preview):
        def on_validation_epoch_end(self, trainer, pl_module):
            before = state()
            super().on_validation_epoch_end(trainer, pl_module)
            states.append((before, state()))

    monkeypatch.setattr(sys.modules[__name__], "Preview", Watched)
    train(tmp_path)
    for before, after in states[1:]:
        assert torch.equal(before[0], after[0])
        assert (before[1] == after[1]).all()
        assert before[2] == after[2]
    assert len(states) == 3  # the sanity check and two epochs


def test_disabled_wandb_trains_without_a_trace(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    train(tmp_path)
    assert len(list((tmp_path / "samples").glob("epoch_*.png"))) == 2
    assert "W&B" not in capfd.readouterr().out
    assert read_offline_runs(tmp_path) == []


@pytest.mark.parametrize("mode", ["auto", "offline"])
def test_wandb_warns_of_nothing_that_is_not_the_users(tmp_path, monkeypatch, capfd, mode):
    monkeypatch.setattr("wandb.errors.term._silent", False)  # as in a new process
    monkeypatch.setattr("wandb.errors.term._printed_messages", set())
    _, logger = loggers_of(tmp_path, "wandb", mode=mode)
    assert logger.experiment.offline
    logger.finalize("success")
    assert "wandb:" not in "".join(capfd.readouterr())


def mode(tmp_path, **config) -> str:
    _, run = loggers_of(tmp_path, "wandb", **config)
    return run._wandb_init["mode"]


def test_offline_without_a_login_and_never_a_prompt(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked the user"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert mode(tmp_path) == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert mode(tmp_path) == "offline"
    with pytest.raises(UserError, match="wandb login"):
        mode(tmp_path, mode="online")


def test_online_with_a_key_or_a_netrc(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1:9 login user password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert mode(tmp_path) == "online"
    (tmp_path / "netrc").unlink()
    wandb.teardown()
    assert mode(tmp_path) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert mode(tmp_path) == "online"
    assert mode(tmp_path, mode="offline") == "offline"
    for chosen in ("offline", "disabled"):
        monkeypatch.setenv("WANDB_MODE", chosen)
        assert mode(tmp_path) == chosen


def test_unusable_key_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(UserError, match="wandb login") as error:
        mode(tmp_path)
    assert "\n" not in str(error.value)


def test_an_online_run_prints_its_address(tmp_path, monkeypatch, capsys):
    ended = []
    run = SimpleNamespace(offline=False, url="https://a.example/run", finish=lambda exit_code: ended.append(exit_code))
    run.define_metric = lambda *_, **__: None
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    logger = Wandb(tmp_path)
    assert logger.experiment is logger.experiment is run
    assert capsys.readouterr().out == "W&B: https://a.example/run\n"
    logger.finalize("failed")
    assert ended == [1]
    assert "wandb sync" not in capsys.readouterr().out


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


def test_a_full_disk_costs_no_row_and_leaves_no_half_of_one(tmp_path, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    (file,) = loggers_of(tmp_path, "none")

    def log(step, **metrics):
        file.log_metrics(metrics, step)
        file.save()
        with open(tmp_path / "metrics.csv", newline="") as read:
            return [row["step"] for row in csv.DictReader(read)]

    assert log(1, loss=0.5) == ["1"]
    size = (tmp_path / "metrics.csv").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 2, limits[1]))
        assert log(2, loss=0.4) == ["1"]
        assert log(3, accuracy=0.3) == ["1"]
        assert (tmp_path / "metrics.csv").stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log(4, loss=0.2) == ["1", "2", "3", "4"]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[3] == "0.3,,3"
    assert caplog.text.count("cannot be written (File too large)") == 1
