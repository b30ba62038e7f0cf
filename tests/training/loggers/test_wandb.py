"""W&B runs, read back from their files. Nothing here uses the network."""

import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch import Trainer
from PIL import Image

from diffusion.ground.errors import UserError
from diffusion.training.callbacks.preview import Preview
from diffusion.training.loggers.wandb import Wandb
from tests.helpers.loggers import CONFIG, loggers_of, rows
from tests.helpers.offline_wandb import read_offline_runs
from tests.helpers.painter import Painter

KEY = "0" * 40


class Dark(Painter):
    """Dark and without contrast: a logger that rescales it shows other pixels."""

    def paint(self, noise):
        return noise * 0.05 - 0.5 + self.global_step / 50


def train(run_folder, logger="wandb", epochs=2, model=None, checkpoint=None) -> Trainer:
    loggers = loggers_of(run_folder, logger)
    trainer = Trainer(
        accelerator="cpu", callbacks=[Preview(run_folder / "samples", n=4)], logger=loggers, max_epochs=epochs,
        log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model or Dark(), ckpt_path=checkpoint)
    return trainer


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
