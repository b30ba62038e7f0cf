"""The Trainer that a config makes. Nothing is launched here: processes begin with the training."""

import pytest
from omegaconf import OmegaConf

from diffusion.ground.errors import UserError
from diffusion.runs.compose import compose
from diffusion.training import trainer as module
from diffusion.training.callbacks.guards import GradientGuard
from diffusion.training.callbacks.predictions import Predictions
from diffusion.training.callbacks.preview import Preview


def resolved(*overrides):
    return OmegaConf.to_container(compose("train", ["dataset=digits", "network=unet_tiny", *overrides]), resolve=True)


def trainer_of(folder, *overrides):
    config = resolved(*overrides)
    return module.make_trainer(config, folder, module.callbacks(config, folder).values())


def test_the_guard_clips_and_not_the_trainer(tmp_path):
    trainer = trainer_of(tmp_path, "strategy=cpu", "trainer.gradient_clip=0.5")
    [guard] = [callback for callback in trainer.callbacks if isinstance(callback, GradientGuard)]
    assert (guard.clip, trainer.gradient_clip_val) == (0.5, None)


def test_more_processes_than_cores_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "cpu_count", lambda: 4)
    with pytest.raises(UserError, match=r"strategy\.devices=99: .* 4 cores"):
        trainer_of(tmp_path, "strategy=ddp_cpu", "strategy.devices=99")
    assert trainer_of(tmp_path, "strategy=ddp_cpu", "strategy.devices=4").num_devices == 4
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    assert trainer_of(tmp_path, "strategy=ddp_cpu").num_devices == 2


@pytest.mark.parametrize(("strategy", "drawn"), [("ddp", True), ("fsdp", False), ("deepspeed", False)])
def test_one_process_alone_does_not_run_a_network_that_all_hold(strategy, drawn, tmp_path, capsys):
    callbacks = module.callbacks(resolved(f"strategy={strategy}", "ema.decay=0"), tmp_path)
    assert any(isinstance(callback, Preview | Predictions) for callback in callbacks.values()) == drawn
    assert "callbacks.loss_curve" in callbacks
    assert ("no previews" in capsys.readouterr().out) != drawn


@pytest.mark.parametrize(
    ("precision", "accelerator", "gpu", "made"),
    [
        ("auto", "auto", True, "bf16-mixed"),
        ("auto", "auto", False, "32-true"),
        ("auto", "cpu", True, "32-true"),
        ("16-mixed", "gpu", True, "16-mixed"),
        ("64-true", "cpu", True, "64-true"),
        ("bf16", "cpu", False, "bf16"),
    ],
)
def test_precisions_that_the_hardware_has(precision, accelerator, gpu, made, monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(module.torch.cuda, "is_bf16_supported", lambda: True)
    assert module.precision(precision, accelerator) == made


@pytest.mark.parametrize(
    ("precision", "accelerator", "mps", "message"),
    [
        ("16-mixed", "cpu", True, "trainer.precision=16-mixed: float16 needs a GPU; on a CPU use bf16-mixed"),
        ("16", "auto", False, "trainer.precision=16: float16 needs a GPU"),
        ("64-true", "auto", True, "trainer.precision=64-true: this GPU has no float64"),
        ("64", "mps", True, "trainer.precision=64: this GPU has no float64"),
    ],
)
def test_precisions_that_it_has_not(precision, accelerator, mps, message, monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module.torch.backends.mps, "is_available", lambda: mps)
    with pytest.raises(UserError, match=message):
        module.precision(precision, accelerator)
