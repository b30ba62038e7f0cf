"""train/gap is 0 for the exact denoiser alone, and val/excess is val/loss less the floor."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from diffusion.evaluation import plots
from diffusion.evaluation.empirical import EmpiricalDenoiser
from diffusion.evaluation.training_reference import trained_on
from diffusion.lit.lightning_module import SIMPLE
from diffusion.losses.objective import L1
from diffusion.losses.weighting import Simple
from diffusion.optimization.averages import Decay
from diffusion.training.callbacks.curves import LossCurve
from diffusion.training.callbacks.ema import EMA
from diffusion.training.callbacks.floor import LossFloor
from tests.helpers.lit_models import digits, small_model

pytestmark = pytest.mark.filterwarnings("ignore")
GAPS = ["train/gap", *(f"train/gap_t{quarter}of4" for quarter in (1, 2, 3, 4))]


class Exact(nn.Module):
    """eps of the exact denoiser of the training images."""

    def __init__(self, model, error=0.0):
        super().__init__()
        self.denoise = EmpiricalDenoiser(model.denoiser.schedule, trained_on(digits(), model))
        self.error = nn.Parameter(torch.tensor(error))

    def forward(self, x_t, step, condition):
        return self.denoise(x_t, step + 1).eps + self.error


def fit(tmp_path, model=None, others=(), settings=None, **options):
    callback = LossFloor(**{"draws": 64, "n": 60, "cache": tmp_path / "cache", **(settings or {})})
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=[callback, *others], use_distributed_sampler=False,
        **{"max_steps": 5, "devices": 1} | options,
    )  # fmt: skip
    trainer.fit(model or small_model(), digits())
    return callback, trainer.callback_metrics


def test_the_exact_denoiser_of_the_training_images_has_no_gap(tmp_path):
    model = small_model(lr=1e-9)
    model.denoiser.network = Exact(model)
    _, logged = fit(tmp_path, model)
    assert max(abs(logged[name].item()) for name in GAPS) < 1e-6
    assert logged["val/excess"] > 0.01  # images that it does not know


def test_the_gap_is_the_squared_error_on_top(tmp_path):
    model = small_model(lr=1e-9)
    model.denoiser.network = Exact(model, error=0.5)
    _, logged = fit(tmp_path, model)
    for name in GAPS:
        assert logged[name].item() == pytest.approx(0.25, rel=1e-4)


def test_excess_is_the_loss_less_the_floor(tmp_path):
    callback, logged = fit(tmp_path)
    mean, error = callback.floor.mean()
    assert logged["val/excess"].item() == pytest.approx(logged["val/loss"].item() - mean, rel=1e-5)
    assert 0 < 5 * error < mean < logged["val/loss"]
    quarters = [logged[name].item() for name in GAPS[1:]]
    assert logged["train/gap"].item() == pytest.approx(sum(quarters) / 4, rel=0.02)  # 15 to a quarter, give or take one


def test_the_gap_is_that_of_the_averaged_weights(tmp_path):
    model, ema = small_model(lr=1e-2), EMA(Decay(0.5))
    callback, logged = fit(tmp_path, model, [ema])
    raw = callback.reference.gap(model.eval().denoiser, 17)[1].mean().item()
    model.load_state_dict({**model.state_dict(), **ema.first})
    averaged = callback.reference.gap(model.denoiser, 17)[1].mean().item()
    assert logged["train/gap"].item() == pytest.approx(averaged, rel=1e-5)
    assert averaged != pytest.approx(raw, rel=1e-3)


def test_loss_less_gap_is_the_floor(tmp_path):
    """On the training images themselves, of a network that is bad: in L_simple, by the loss's own code."""
    model = small_model()
    callback, _ = fit(tmp_path, model, settings={"n": 3000})
    means = callback.reference.means
    t, gap = callback.reference.gap(model.eval().denoiser, 500)
    assert torch.equal(t, means.t)
    assert torch.equal(gap[:9], SIMPLE(model.denoiser, type(means)(*(each[:9] for each in vars(means).values()))))


def test_the_floor_is_in_the_figure(tmp_path, monkeypatch):
    calls, draw = [], plots.draw_losses
    monkeypatch.setattr(plots, "draw_losses", lambda *given, **more: calls.append(more) or draw(*given, **more))
    callback, _ = fit(tmp_path, others=[LossCurve(tmp_path / "samples")])
    t, value = calls[-1]["floor"]
    assert torch.equal(t, callback.floor.t)
    assert torch.equal(value, callback.floor.value)
    [axis] = draw(torch.arange(1, 1001.0), torch.rand(1000), 1000, (t, value)).axes
    assert "floor of the training images" in [line.get_label() for line in axis.lines]
    assert axis.get_ylim()[0] == pytest.approx(value.max().item() / 1000)


def test_what_is_not_measured_is_not_logged(tmp_path, capsys):
    _, logged = fit(tmp_path, settings={"rows": 100})
    assert "val/excess" in logged
    assert not {*GAPS} & logged.keys()
    assert "callbacks.floor.rows=null" in capsys.readouterr().out
    callback, logged = fit(tmp_path, overfit_batches=1)
    assert callback.floor is None
    assert not {"val/excess", *GAPS} & logged.keys()


def test_a_loss_other_than_squared_error_is_reported(tmp_path, capsys):
    model = small_model()
    model.objective = L1(Simple())
    fit(tmp_path, model)
    assert "L1 is not a squared error" in capsys.readouterr().out
