"""Images drawn at the end of a validation epoch: how training is going, to the eye."""

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor

from diffusion import images

log = logging.getLogger(__name__)


class Preview(Callback):
    """Draws n images from the same noise each time, so that epochs can be compared, into one grid.

    The grid is written to `folder/epoch_0003_step_0001234.png` (epochs and optimiser steps done) and the same pixels go
    to every logger that shows images. The seconds spent are logged as `preview/seconds`. With the EMA callback,
    wherever it stands in the list, the images are drawn with the averaged weights. Only rank 0 draws: nothing here
    waits for other processes.

    Args:
        folder: where the grids go, `samples` in the run folder.
        n: images in a grid.
        every_n_epochs: epochs between previews; only epochs that end with a validation can have one.
        seed: of the noise.
        sampler: a cheaper one than the module's own, or None for that.
    """

    def __init__(
        self, folder: Path | str, n: int = 36, every_n_epochs: int = 1, seed: int = 0, sampler: Any = None
    ) -> None:
        self.folder = Path(folder)
        self.n = n
        self.every_n_epochs = every_n_epochs
        self.seed = seed
        self.sampler = sampler

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if (
            trainer.sanity_checking
            or (epoch % self.every_n_epochs and not trainer.should_stop)
            or not trainer.is_global_zero
        ):
            return
        start = time.perf_counter()
        classes = pl_module.classes
        y = torch.arange(self.n) % len(classes) if classes else None  # a column a class
        x_0 = pl_module.sample(self.n, seed=self.seed, y=y, purpose="preview", sampler=self.sampler, progress=False)
        grid = images.grid(images.to_uint8(x_0), columns=len(classes) if classes else None)
        path = self.folder / f"epoch_{epoch:04d}_step_{trainer.global_step:07d}.png"
        try:
            images.write_png(path, grid)
            show(trainer.loggers, "preview", grid, path, trainer.global_step)
        except OSError as error:  # a full disk costs a picture, not the run
            log.warning("%s was not written (%s)", path, error.strerror)
        pl_module.log("preview/seconds", time.perf_counter() - start, rank_zero_only=True)


def show(loggers: Iterable[Logger], name: str, image: Tensor, path: Path, step: int) -> None:
    """Gives an image, uint8 (C, H, W) and written at `path`, to the loggers that can show one."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            # The file itself, since W&B rescales the contrast of arrays it takes for floats. Lightning passes the step
            # on as the metric `trainer/global_step`: W&B's own step may only grow, and drops what comes late.
            logger.log_metrics({name: wandb.Image(str(path))}, step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, image, global_step=step)
