"""Previews: which epochs, whose weights, which files, and nothing taken from the global random state."""

import random

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch.utils.data import DataLoader

from diffusion import images
from diffusion.averages import Decay
from diffusion.callbacks.ema import EMA
from diffusion.callbacks.preview import Preview, show
from diffusion.random import normal


class Painter(LightningModule):
    """Its 'images' are noise times its one weight, so that a picture tells which weights drew it."""

    classes = None

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.05))
        self.drawn = []

    def sample(self, n, seed, y, purpose, sampler, progress):
        self.drawn.append((n, seed, purpose, sampler, self.weight.item()))
        return normal(seed, purpose, torch.arange(n), (1, 8, 8)) * self.weight.item()

    def training_step(self, batch, batch_idx):
        return (self.weight - 1).square()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(torch.zeros(4, 1), batch_size=1)

    val_dataloader = train_dataloader


def fit(folder, *callbacks, **options) -> tuple[Painter, Trainer]:
    model = Painter()
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", callbacks=list(callbacks), enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **{"logger": False, **options},
    )  # fmt: skip
    trainer.fit(model)
    return model, trainer


def test_one_grid_per_due_epoch_and_none_in_the_sanity_check(tmp_path):
    sampler = object()
    model, trainer = fit(tmp_path, Preview(tmp_path, n=5, every_n_epochs=2, seed=7, sampler=sampler), max_epochs=4)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "epoch_0002_step_0000008.png",
        "epoch_0004_step_0000016.png",
    ]
    assert [drawn[:4] for drawn in model.drawn] == [(5, 7, "preview", sampler)] * 2
    assert trainer.callback_metrics["preview/seconds"] > 0


@pytest.mark.parametrize("ema_first", [True, False])
def test_averaged_weights_draw_whatever_the_order_of_callbacks(tmp_path, ema_first):
    preview, ema = Preview(tmp_path, n=4), EMA(Decay(0.9))
    model, _ = fit(tmp_path, *([ema, preview] if ema_first else [preview, ema]), max_epochs=1)
    averaged = next(iter(ema.first.values())).item()
    assert model.drawn[0][-1] == averaged != model.weight.item()
    expected = normal(0, "preview", torch.arange(4), (1, 8, 8)) * averaged
    written = np.asarray(Image.open(next(tmp_path.glob("*.png"))))
    np.testing.assert_array_equal(written, images.grid(images.to_uint8(expected))[0])


def test_global_random_state_is_left_alone(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    grid = images.grid(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    show([logger], "preview", grid, images.write_png(tmp_path / "grid.png", grid), step=3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


def test_tensorboard_gets_the_same_pixels(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path, name="board", version="")
    fit(tmp_path, Preview(tmp_path / "samples", n=4), max_epochs=2, logger=logger)
    events = accumulator.EventAccumulator(str(tmp_path / "board")).Reload()
    shown = events.Images("preview")
    assert [event.step for event in shown] == [4, 8]
    for event, path in zip(shown, sorted((tmp_path / "samples").glob("*.png")), strict=True):
        (tmp_path / "shown.png").write_bytes(event.encoded_image_string)
        pixels = np.asarray(Image.open(tmp_path / "shown.png").convert("RGB"))
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(path).convert("RGB")))
    assert len(events.Scalars("preview/seconds")) == 2
