"""Pictures of a run: when they are drawn, what they cost, and who is given them."""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image

log = logging.getLogger(__name__)


class Pictures(Callback):
    """Draws at the end of a validation epoch, never in the sanity check.

    Only rank 0 draws: nothing here waits for other processes. The seconds that all callbacks of this kind have spent
    are logged as `preview/seconds`. With the EMA callback, wherever it stands in the list, they see the averaged
    weights.

    Args:
        folder: where the files go, `samples` in the run folder.
        every_n_epochs: epochs between drawings; only epochs that end with a validation can have one.
    """

    def __init__(self, folder: Path | str, every_n_epochs: int = 1) -> None:
        self.folder = Path(folder)
        self.every_n_epochs = every_n_epochs

    @abstractmethod
    def draw(self, pl_module: LightningModule, when: str) -> Mapping[str, Path]:
        """Writes files named by `when`; returns them under the names that the loggers are to use."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        due = epoch % self.every_n_epochs == 0 or trainer.should_stop
        if trainer.sanity_checking or not due or not trainer.is_global_zero:
            return
        start = time.perf_counter()
        when = f"epoch_{epoch:04d}_step_{trainer.global_step:07d}"  # epochs and optimiser steps done
        publish(trainer, lambda: self.draw(pl_module, when))
        pl_module.log("preview/seconds", time.perf_counter() - start, reduce_fx="sum", rank_zero_only=True)


def publish(trainer: Trainer, draw: Callable[[], Mapping[str, Path]]) -> None:
    """Gives the files that `draw` writes to the loggers. A full disk costs a picture, not the run."""
    try:
        for name, path in draw().items():
            show(trainer.loggers, name, path, trainer.global_step)
    except OSError as error:
        log.warning("a picture was not written (%s)", error)


def show(loggers: Iterable[Logger], name: str, path: Path, step: int) -> None:
    """Gives a PNG or a GIF to the loggers that can show it."""
    moves = path.suffix == ".gif"
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            # The file itself, since W&B rescales the contrast of arrays it takes for floats. Lightning passes the step
            # on as the metric `trainer/global_step`: W&B's own step may only grow, and drops what comes late.
            logger.log_metrics({name: (wandb.Video if moves else wandb.Image)(str(path))}, step=step)
        elif isinstance(logger, TensorBoardLogger) and not moves:  # it makes its own GIFs, with a package we lack
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            logger.experiment.add_image(name, pixels, global_step=step, dataformats="HWC")
