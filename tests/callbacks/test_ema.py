"""The average is the formula's, survives a resume, and never trades places with the raw weights."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch.utils.data import DataLoader

from diffusion.callbacks.ema import EMA
from diffusion.errors import UserError


class Regression(LightningModule):
    """Three weights and a bias; a buffer that changes with training, as a BatchNorm's would."""

    def __init__(self, fail_in_validation: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)
        self.register_buffer("batches", torch.zeros(()))
        self.fail_in_validation = fail_in_validation

    def training_step(self, batch, batch_idx):
        self.batches += 1
        return (self.layer(batch.to(self.layer.weight.dtype)) - 1).square().mean()

    def validation_step(self, batch, batch_idx):
        if self.fail_in_validation and not self.trainer.sanity_checking:
            raise RuntimeError("validation broke")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(torch.linspace(-1, 1, 24).reshape(8, 3), batch_size=2)

    val_dataloader = train_dataloader


class Watch(Callback):
    """Notes the raw weights after each optimiser step, and the weights each validation hook sees."""

    def __init__(self):
        self.raw = []
        self.in_validation = []
        self.average_then = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step > len(self.raw):
            self.raw.append(flat(pl_module.parameters()))

    def on_validation_batch_start(self, trainer, pl_module, *_):
        self.note(trainer, pl_module)

    def on_validation_epoch_end(self, trainer, pl_module):
        self.note(trainer, pl_module)

    def note(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.in_validation.append(flat(pl_module.parameters()))
            self.average_then.append(average(ema_of(trainer)))


def flat(parameters) -> np.ndarray:
    return torch.cat([parameter.detach().float().flatten() for parameter in parameters]).numpy().copy()


def average(ema: EMA) -> np.ndarray:
    return flat(ema._average_model.parameters())


def ema_of(trainer) -> EMA:
    return next(callback for callback in trainer.callbacks if isinstance(callback, EMA))


def trainer_with(folder, *callbacks, **options) -> Trainer:
    return Trainer(
        default_root_dir=folder, accelerator="cpu", callbacks=list(callbacks), logger=False,
        enable_progress_bar=False, enable_model_summary=False,
        **{"enable_checkpointing": False, **options},
    )  # fmt: skip


def closed_form(start: np.ndarray, raw: list[np.ndarray], decay: float) -> np.ndarray:
    """sum_i w_i raw_i with w_i = (1 - d_i) * prod_{j > i} d_j, written out rather than iterated."""
    decays = [min(decay, (1 + n) / (10 + n)) for n in range(1, len(raw) + 1)]
    total = np.prod(decays) * start.astype(np.float64)
    for i, weights in enumerate(raw):
        total += (1 - decays[i]) * np.prod(decays[i + 1 :]) * weights
    return total


@pytest.mark.parametrize("decay", [0.5, 0.9999])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_average_is_the_closed_form_once_per_optimiser_step(tmp_path, decay, accumulate):
    model, watch, ema = Regression(), Watch(), EMA(decay)
    start = flat(model.parameters())
    trainer = trainer_with(tmp_path, ema, watch, max_epochs=6, accumulate_grad_batches=accumulate)
    trainer.fit(model)
    assert trainer.global_step == len(watch.raw) == 24 // accumulate
    np.testing.assert_allclose(average(ema), closed_form(start, watch.raw, decay), rtol=1e-5, atol=1e-6)
    assert not np.allclose(average(ema), watch.raw[-1], atol=1e-3)


def test_module_keeps_its_raw_weights_after_training(tmp_path):
    model, watch = Regression(), Watch()
    trainer_with(tmp_path, EMA(), watch, max_epochs=2).fit(model)
    np.testing.assert_array_equal(flat(model.parameters()), watch.raw[-1])


@pytest.mark.parametrize("ema_first", [True, False])
def test_validation_sees_the_average_in_any_order_of_callbacks(tmp_path, ema_first):
    model, watch, ema = Regression(), Watch(), EMA(0.9)
    trainer_with(tmp_path, *([ema, watch] if ema_first else [watch, ema]), max_epochs=2).fit(model)
    assert len(watch.in_validation) == 2 * (4 + 1)
    np.testing.assert_array_equal(watch.in_validation, watch.average_then)
    assert not np.allclose(watch.in_validation[-1], watch.raw[-1], atol=1e-3)


def test_checkpoint_names_both(tmp_path):
    model, watch, ema = Regression(), Watch(), EMA(0.9)
    saver = ModelCheckpoint(tmp_path, filename="validated", every_n_epochs=1, save_on_train_epoch_end=False)
    trainer = trainer_with(tmp_path, saver, ema, watch, max_epochs=1, enable_checkpointing=True)
    trainer.fit(model)
    checkpoint = torch.load(tmp_path / "validated.ckpt", weights_only=True)
    names = [name for name, _ in model.named_parameters()]
    np.testing.assert_array_equal(flat(checkpoint["state_dict"][name] for name in names), watch.raw[-1])
    np.testing.assert_array_equal(flat(checkpoint["ema_state_dict"][name] for name in names), average(ema))
    assert checkpoint["ema_state_dict"].keys() == checkpoint["state_dict"].keys()
    assert checkpoint["ema_state_dict"]["batches"] == checkpoint["state_dict"]["batches"] == 4


def test_n_and_n_steps_are_2n_steps_bitwise(tmp_path):
    def train(folder, steps, checkpoint=None):
        model, ema = Regression(), EMA(0.9)
        trainer = trainer_with(folder, ema, max_steps=steps, accumulate_grad_batches=2)
        trainer.fit(model, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(folder / f"{steps}.ckpt")
        return torch.load(folder / f"{steps}.ckpt", weights_only=True)

    (tmp_path / "whole").mkdir()
    (tmp_path / "halves").mkdir()
    whole = train(tmp_path / "whole", 8)
    half = train(tmp_path / "halves", 4)
    halves = train(tmp_path / "halves", 8, tmp_path / "halves" / "4.ckpt")
    for key in ("state_dict", "ema_state_dict"):
        for name, value in whole[key].items():
            assert torch.equal(value, halves[key][name]), (key, name)
    assert not torch.equal(half["ema_state_dict"]["layer.weight"], whole["ema_state_dict"]["layer.weight"])


def test_checkpoint_without_average_starts_one(tmp_path):
    model = Regression()
    trainer = trainer_with(tmp_path, max_steps=4)
    trainer.fit(model)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    ema = EMA(0.9)
    trainer_with(tmp_path, ema, max_steps=4).fit(Regression(), ckpt_path=tmp_path / "plain.ckpt")
    np.testing.assert_array_equal(average(ema), flat(model.parameters()))


def test_raw_weights_are_back_when_validation_breaks(tmp_path):
    model, watch, ema = Regression(fail_in_validation=True), Watch(), EMA(0.9)
    saver = ModelCheckpoint(tmp_path, filename="broken", save_on_exception=True, enable_version_counter=False)
    trainer = trainer_with(tmp_path, saver, ema, watch, max_epochs=3, enable_checkpointing=True)
    with pytest.raises(RuntimeError, match="validation broke"):
        trainer.fit(model)
    assert len(watch.in_validation) == 1  # broke while the average was in place
    np.testing.assert_array_equal(flat(model.parameters()), watch.raw[-1])
    checkpoint = torch.load(next(tmp_path.glob("*.ckpt")), weights_only=True)
    names = [name for name, _ in model.named_parameters()]
    np.testing.assert_array_equal(flat(checkpoint["state_dict"][name] for name in names), watch.raw[-1])
    np.testing.assert_array_equal(flat(checkpoint["ema_state_dict"][name] for name in names), average(ema))


def test_half_precision_weights_are_averaged_in_float32(tmp_path):
    model, watch, ema = Regression(), Watch(), EMA(0.9)
    start = flat(model.parameters())
    trainer_with(tmp_path, ema, watch, max_epochs=4, precision="bf16-true").fit(model)
    assert model.layer.weight.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in ema._average_model.parameters()} == {torch.float32}
    np.testing.assert_allclose(average(ema), closed_form(start, watch.raw, 0.9), rtol=1e-5, atol=1e-6)
    rounded = torch.from_numpy(watch.average_then[-1]).bfloat16().float().numpy()
    np.testing.assert_array_equal(watch.in_validation[-1], rounded)
    np.testing.assert_array_equal(flat(model.parameters()), watch.raw[-1])


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy])
def test_sharded_strategies_are_refused(strategy):
    trainer = SimpleNamespace(strategy=object.__new__(strategy))
    with pytest.raises(UserError, match="strategy=ddp"):
        EMA().setup(trainer, Regression(), "fit")


@pytest.mark.parametrize("decay", [-0.1, 1.0, 10])
def test_impossible_decay_is_refused(decay):
    with pytest.raises(UserError, match="decay="):
        EMA(decay)
