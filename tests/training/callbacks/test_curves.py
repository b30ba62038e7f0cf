"""The curves are those of the very schedule and of the losses of all images, whoever has them."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from diffusion.evaluation import plots
from diffusion.losses.objective import L2, VLB
from diffusion.losses.timesteps import LogNormal
from diffusion.losses.weighting import MinSNR, Simple
from diffusion.schedule import cosine, linear
from diffusion.training.callbacks.curves import LossCurve, ScheduleCurve
from tests.helpers.two_processes import run_script
from tests.lit.test_lightning_module import digits, small_model

pytestmark = pytest.mark.filterwarnings("ignore")


def fit(folder, model=None, ckpt=None, val_images=64, **options):
    options = {"max_steps": 10, "devices": 1, "enable_checkpointing": False} | options
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ScheduleCurve(folder), LossCurve(folder / "samples")], use_distributed_sampler=False, **options,
    )  # fmt: skip
    data = digits()
    data.val_images = val_images
    trainer.fit(model or small_model(), data, ckpt_path=ckpt)
    return trainer


@pytest.fixture
def drawn(monkeypatch):
    """What each loss picture was made of: t, losses, T."""
    calls, draw = [], plots.draw_losses
    monkeypatch.setattr(plots, "draw_losses", lambda *given, **more: calls.append(given) or draw(*given, **more))
    return calls


def test_a_figure_per_validation_and_one_of_the_schedule(tmp_path, drawn):
    trainer = fit(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "samples/loss_epoch_0001_step_0000005.png",
        "samples/loss_epoch_0002_step_0000010.png",
        "schedule.png",
    ]
    for path in tmp_path.rglob("*.png"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 300
        assert 0.5 < (pixels == 255).mean() < 0.98
    for t, losses, T in drawn:
        assert (len(t), len(losses), T) == (64, 64, 1000)
    # The same images, t and noise in both epochs; the mean is the loss that is logged.
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert drawn[1][1].mean().item() == pytest.approx(trainer.callback_metrics["val/loss"].item(), rel=1e-5)
    assert trainer.callback_metrics["preview/seconds"] > 0


def test_what_learns_has_a_curve_too(tmp_path):
    class Scaled(MinSNR):
        scale = torch.nn.Parameter(torch.ones(()))

        def of_log_snr(self, log_snr):
            return self.scale * super().of_log_snr(log_snr)

    model = small_model()
    model.objective = L2(Scaled())
    assert ScheduleCurve(tmp_path).draw(model).exists()


def test_a_resumed_run_keeps_the_figure_of_its_schedule(tmp_path):
    fit(tmp_path, max_steps=5).save_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "schedule.png").unlink()
    fit(tmp_path, ckpt=tmp_path / "a.ckpt")
    assert not (tmp_path / "schedule.png").exists()


def test_a_loss_without_weights_has_a_figure_too(tmp_path):
    model = small_model()
    model.objective = VLB(Simple())
    assert ScheduleCurve(tmp_path).draw(model) == tmp_path / "schedule.png"


def test_loss_and_band_of_each_part_of_t():
    """Losses of 100 k, ..., 199 k in part k: the mean and the percentiles are known."""
    T, n = 1000, 100
    part = torch.arange(20).repeat_interleave(n)
    t = 1 + part * 50 + torch.arange(20 * n) % 50
    losses = (part + 1) * (100 + torch.arange(20 * n) % n).float()
    order = torch.randperm(20 * n, generator=torch.Generator().manual_seed(0))
    axis = plots.draw_losses(t[order].float(), losses[order], T).axes[0]
    (line,) = axis.lines
    np.testing.assert_allclose(line.get_xdata(), 25 + 50 * np.arange(20))
    np.testing.assert_allclose(line.get_ydata(), 149.5 * np.arange(1, 21))
    corners = axis.collections[0].get_paths()[0].vertices
    third = corners[corners[:, 0] == 125, 1]
    np.testing.assert_allclose([third.min(), third.max()], [3 * 109.9, 3 * 189.1], rtol=1e-6)
    assert axis.get_yscale() == "log"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("losses", [torch.ones(1), torch.ones(2), torch.full((7,), float("nan")), torch.zeros(7)])
def test_losses_that_cannot_be_drawn_break_nothing(tmp_path, losses):
    figure = plots.draw_losses(torch.linspace(1, 30, len(losses)), losses, 1000)  # most parts of t are empty
    assert plots.write_figure(tmp_path / "a.png", figure).exists()


def test_schedule_density_and_weight():
    schedule = cosine()
    t, _ = LogNormal().draw(0, torch.arange(10000), schedule)
    alpha_bar, log_snr, training = plots.draw_training(schedule, t, MinSNR(gamma=5)).axes
    x, y = alpha_bar.lines[0].get_data()
    np.testing.assert_allclose(y, schedule.log_alpha_bar(torch.as_tensor(x)).exp())
    x, y = log_snr.lines[0].get_data()
    np.testing.assert_allclose(y, schedule.log_snr(torch.as_tensor(x)))
    k, weight = training.lines[0].get_data()
    snr = schedule.log_snr(torch.as_tensor(k)).exp()
    np.testing.assert_allclose(weight, (5 / snr).clamp(max=1), rtol=1e-9)  # of the eps error (Hang et al. 2023)
    density = training.patches[0].get_data().values
    assert np.mean(density) == pytest.approx(1)
    assert max(density) > 2 * min(density)


def test_a_schedule_that_ends_in_pure_noise_is_drawn(tmp_path):
    schedule = linear().with_zero_terminal_snr()
    figure = plots.draw_training(schedule, torch.linspace(1, 1000, 100), MinSNR())
    assert plots.write_figure(tmp_path / "a.png", figure).exists()


SCRIPT = """
import sys
from pathlib import Path
import torch
from diffusion.evaluation import plots
from tests.training.callbacks.test_curves import fit

calls, draw = [], plots.draw_losses
plots.draw_losses = lambda *given, **more: calls.append(given) or draw(*given, **more)
folder = Path(sys.argv[1])
trainer = fit(folder, devices=2, strategy="ddp", max_steps=5, val_images=63)
torch.save([given[:2] for given in calls], folder / f"rank{trainer.global_rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_draw_the_losses_of_both(tmp_path):
    """63 images: one process has one more than the other."""
    run_script(SCRIPT, tmp_path)
    assert torch.load(tmp_path / "rank1.pt") == []
    [(t, losses)] = torch.load(tmp_path / "rank0.pt")
    assert len(t.unique()) == len(losses) == 63
    assert (losses > 0).all()
