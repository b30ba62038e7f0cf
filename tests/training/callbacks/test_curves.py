"""The curves are those of the very schedule and of the losses of all images, whoever has them."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from diffusion.evaluation import plots
from diffusion.losses.objective import L2, VLB
from diffusion.losses.weighting import MinSNR, Simple
from diffusion.training.callbacks.curves import LossCurve, ScheduleCurve
from tests.helpers.lit_models import digits, small_model
from tests.helpers.two_processes import run_script

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
