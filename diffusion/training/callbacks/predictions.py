"""Predictions of x_0 for validation images at several t."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import Count
from diffusion.ground import images, random
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.lit.training_inputs import TrainingPair
from diffusion.process import q_sample
from diffusion.training.callbacks.pictures import Pictures
from diffusion.training.callbacks.validations import Validations

_LEVELS = 8  # of t, evenly spaced up to T
_IMAGES = 4


class Predictions(Pictures):
    """Draws the first validation images: x_t at several t, with the same eps in every epoch, and the prediction of x_0
    below it, into `x_0_epoch_0003_step_0001234.png`. The first column is the image."""

    runs_network = True

    def __init__(self, samples: Path | str, validations: Validations | None = None, keep: Count | None = 50) -> None:
        super().__init__(samples, validations, keep)
        self._first: tuple[Tensor, Condition]  # set at the first batch of a validation

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: TrainingPair,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0:
            self._first = batch.x[:_IMAGES], batch.condition.rows(slice(_IMAGES))

    def draw(self, pl_module: LitDiffusion, when: str) -> dict[str, Path]:
        (x, condition), denoiser = self._first, pl_module.denoiser
        x_0 = pl_module.space.encode(x)
        eps = random.normal(0, "validation/eps", torch.arange(len(x)), x_0.shape[1:]).to(x.device)
        levels = torch.linspace(0, denoiser.schedule.T, _LEVELS + 1).round().unique()[1:]
        columns = [torch.stack([x_0, x_0], dim=1)]
        for t in levels:
            x_t = q_sample(denoiser.schedule, x_0, t, eps)
            columns.append(torch.stack([x_t, denoiser(x_t, t, condition).x_0], dim=1))
        cells = torch.stack(columns, dim=2)  # (image, x_t or x_0, t, C, H, W)
        grid = images.grid(
            pl_module.space.picture(cells.flatten(0, 2)).cpu(),
            columns=len(columns),
            names=["x_t", "x_0"] * len(x),
            titles=["data", *(f"t={t:.0f}" for t in levels)],
        )
        return {"preview/x_0": images.write_png(self.folder / f"x_0_{when}.png", grid)}
