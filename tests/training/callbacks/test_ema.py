"""The average is the formula's, survives a resume, and never trades places with the raw weights."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch.utils.data import DataLoader

from diffusion.ground.errors import UserError
from diffusion.optimization import snapshots
from diffusion.optimization.averages import Decay, HalfLife, Power
from diffusion.training.callbacks.ema import EMA
from tests.optimization.test_averages import power_weights, run_weights


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

    def averaged_parameters(self):
        return self.named_parameters(remove_duplicate=False)

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
    return flat(ema.first.values())


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
    model, watch, ema = Regression(), Watch(), EMA(Decay(decay))
    start = flat(model.parameters())
    trainer = trainer_with(tmp_path, ema, watch, max_epochs=6, accumulate_grad_batches=accumulate)
    trainer.fit(model)
    assert trainer.global_step == len(watch.raw) == 24 // accumulate
    np.testing.assert_allclose(average(ema), closed_form(start, watch.raw, decay), rtol=1e-5, atol=1e-6)
    assert not np.allclose(average(ema), watch.raw[-1], atol=1e-3)


def test_module_keeps_its_raw_weights_after_training(tmp_path):
    model, watch = Regression(), Watch()
    trainer_with(tmp_path, EMA(Decay()), watch, max_epochs=2).fit(model)
    np.testing.assert_array_equal(flat(model.parameters()), watch.raw[-1])


@pytest.mark.parametrize("ema_first", [True, False])
def test_validation_sees_the_average_in_any_order_of_callbacks(tmp_path, ema_first):
    model, watch, ema = Regression(), Watch(), EMA(Decay(0.9))
    trainer_with(tmp_path, *([ema, watch] if ema_first else [watch, ema]), max_epochs=2).fit(model)
    assert len(watch.in_validation) == 2 * (4 + 1)
    np.testing.assert_array_equal(watch.in_validation, watch.average_then)
    assert not np.allclose(watch.in_validation[-1], watch.raw[-1], atol=1e-3)


def test_checkpoint_names_both(tmp_path):
    model, watch, ema = Regression(), Watch(), EMA(Decay(0.9))
    saver = ModelCheckpoint(tmp_path, filename="validated", every_n_epochs=1, save_on_train_epoch_end=False)
    trainer = trainer_with(tmp_path, saver, ema, watch, max_epochs=1, enable_checkpointing=True)
    trainer.fit(model)
    checkpoint = torch.load(tmp_path / "validated.ckpt", weights_only=True)
    names = [name for name, _ in model.named_parameters()]
    np.testing.assert_array_equal(flat(checkpoint["state_dict"][name] for name in names), watch.raw[-1])
    np.testing.assert_array_equal(flat(checkpoint["ema_state_dict"][name] for name in names), average(ema))
    assert checkpoint["ema_state_dict"].keys() == checkpoint["state_dict"].keys()
    assert checkpoint["ema_state_dict"]["batches"] == checkpoint["state_dict"]["batches"] == 4


PROFILES = {
    "decay": lambda: Decay(0.9),
    "half_life": lambda: HalfLife([2, 20, 200]),
    "power": lambda: Power([0.1, 0.05], snapshots=3),
}


@pytest.mark.parametrize("choice", PROFILES)
def test_every_average_is_its_profiles(tmp_path, choice):
    model, watch, ema = Regression(), Watch(), EMA(PROFILES[choice](), batch_size=4)
    start = flat(model.parameters())
    trainer_with(tmp_path, ema, watch, max_epochs=12, accumulate_grad_batches=2).fit(model)
    decays = zip(*(ema.profiles.decays(step, 4) for step in range(1, 25)), strict=True)
    for kept, d in zip(ema.averages.values(), decays, strict=True):
        expected = run_weights(d) @ watch.raw + np.prod(d) * start
        np.testing.assert_allclose(flat(kept.values()), expected, rtol=1e-5, atol=1e-6)
    assert list(ema.averages) == ema.profiles.names
    np.testing.assert_array_equal(watch.in_validation[-1], average(ema))


def test_checkpoint_holds_every_average_and_the_first_only_once(tmp_path):
    class Wide(Regression):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(100_000))  # 400 kB

    sizes = {}
    for profiles in Decay(0.9), HalfLife([2, 20, 200]):
        ema = EMA(profiles)
        trainer = trainer_with(tmp_path, ema, max_steps=4)
        trainer.fit(Wide())
        trainer.save_checkpoint(tmp_path / "saved.ckpt")
        checkpoint = torch.load(tmp_path / "saved.ckpt", weights_only=True)
        assert_same(checkpoint["averages"], ema.averages)
        sizes[len(profiles.names)] = (tmp_path / "saved.ckpt").stat().st_size
    assert sizes[3] - sizes[1] == pytest.approx(2 * 400_000, rel=0.05)
    assert sizes[1] == pytest.approx(2 * 400_000, rel=0.05)  # raw and average; Adam has not seen what is unused


@pytest.mark.parametrize("choice", PROFILES)
def test_n_and_n_steps_are_2n_steps_bitwise(tmp_path, choice):
    def train(folder, steps, checkpoint=None):
        model, ema = Regression(), EMA(PROFILES[choice](), batch_size=4, folder=folder / "averages")
        trainer = trainer_with(folder, ema, max_steps=steps, accumulate_grad_batches=2)
        trainer.fit(model, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(folder / f"{steps}.ckpt")
        return torch.load(folder / f"{steps}.ckpt", weights_only=True)

    def taken(folder):
        files = sorted((folder / "averages").glob("*"))
        return {file.name: torch.load(file, weights_only=True)["averages"] for file in files}

    (tmp_path / "whole").mkdir()
    (tmp_path / "halves").mkdir()
    whole = train(tmp_path / "whole", 8)
    half = train(tmp_path / "halves", 4)
    halves = train(tmp_path / "halves", 8, tmp_path / "halves" / "4.ckpt")
    assert_same(whole["state_dict"], halves["state_dict"])
    assert_same(whole["ema_state_dict"], halves["ema_state_dict"])
    assert_same(whole["averages"], halves["averages"])
    assert not torch.equal(half["ema_state_dict"]["layer.weight"], whole["ema_state_dict"]["layer.weight"])
    assert_same(taken(tmp_path / "whole"), taken(tmp_path / "halves"))
    assert list(taken(tmp_path / "whole")) == [f"{n:09d}.pt" for n in (2, 4, 6, 8)] * (choice == "power")


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert_same(value, b[key]) if isinstance(value, dict) else torch.testing.assert_close(
            value, b[key], rtol=0, atol=0
        )


def test_any_width_of_a_stored_training(tmp_path):
    """Post-hoc reconstruction from the files of a run, against the average of all its iterates."""
    model, watch, ema = Regression(), Watch(), EMA(Power([0.1, 0.05]), folder=tmp_path)
    trainer_with(tmp_path, ema, watch, max_epochs=80).fit(model)
    n, iterates = len(watch.raw), np.array(watch.raw, dtype=np.float64)
    for sigma_rel in 0.03, 0.08, 0.15, 0.2:
        made = flat(snapshots.reconstruct(tmp_path, n, ema.averages, sigma_rel).values())
        exact = power_weights(n, sigma_rel) @ iterates
        assert np.linalg.norm(made - exact) < 5e-3 * np.linalg.norm(exact), sigma_rel


def test_power_averages_cannot_begin_in_the_middle_of_a_run(tmp_path):
    for profiles, there in [(Decay(0.9), "decay"), (Power([0.1]), "power_0.1")]:
        trainer = trainer_with(tmp_path, EMA(profiles), max_steps=4)
        trainer.fit(Regression())
        trainer.save_checkpoint(tmp_path / "other.ckpt")
        with pytest.raises(UserError, match=f"has {there} and not power_0.1, power_0.05"):
            trainer_with(tmp_path, EMA(Power()), max_steps=8).fit(Regression(), ckpt_path=tmp_path / "other.ckpt")


def test_a_new_average_starts_from_the_one_that_was_kept(tmp_path):
    kept = EMA(Decay(0.9))
    trainer = trainer_with(tmp_path, kept, max_steps=4)
    trainer.fit(Regression())
    trainer.save_checkpoint(tmp_path / "decay.ckpt")
    ema = EMA(HalfLife([2, 20]))
    trainer_with(tmp_path, ema, max_steps=4).fit(Regression(), ckpt_path=tmp_path / "decay.ckpt")
    for started in ema.averages.values():
        assert_same(started, kept.first)


def test_a_shared_parameter_is_averaged_under_each_of_its_names(tmp_path):
    class Tied(Regression):
        def __init__(self):
            super().__init__()
            self.alias = self.layer

    trainer = trainer_with(tmp_path, EMA(Decay(0.9)), max_steps=4)
    trainer.fit(Tied())
    trainer.save_checkpoint(tmp_path / "tied.ckpt")
    averaged = torch.load(tmp_path / "tied.ckpt", weights_only=True)["ema_state_dict"]
    assert torch.equal(averaged["alias.weight"], averaged["layer.weight"])


def test_checkpoint_without_average_starts_one(tmp_path):
    model = Regression()
    trainer = trainer_with(tmp_path, max_steps=4)
    trainer.fit(model)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    ema = EMA(Decay(0.9))
    trainer_with(tmp_path, ema, max_steps=4).fit(Regression(), ckpt_path=tmp_path / "plain.ckpt")
    np.testing.assert_array_equal(average(ema), flat(model.parameters()))


def test_raw_weights_are_back_when_validation_breaks(tmp_path):
    model, watch, ema = Regression(fail_in_validation=True), Watch(), EMA(Decay(0.9))
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
    model, watch, ema = Regression(), Watch(), EMA(Decay(0.9))
    start = flat(model.parameters())
    trainer_with(tmp_path, ema, watch, max_epochs=4, precision="bf16-true").fit(model)
    assert model.layer.weight.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in ema.first.values()} == {torch.float32}
    np.testing.assert_allclose(average(ema), closed_form(start, watch.raw, 0.9), rtol=1e-5, atol=1e-6)
    rounded = torch.from_numpy(watch.average_then[-1]).bfloat16().float().numpy()
    np.testing.assert_array_equal(watch.in_validation[-1], rounded)
    np.testing.assert_array_equal(flat(model.parameters()), watch.raw[-1])


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy])
def test_sharded_strategies_are_refused(strategy):
    trainer = SimpleNamespace(strategy=object.__new__(strategy))
    with pytest.raises(UserError, match="strategy=ddp"):
        EMA(Decay()).setup(trainer, Regression(), "fit")
