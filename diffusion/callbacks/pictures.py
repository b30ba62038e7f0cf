"""Pictures of a run: what they cost, who is given them, and which of them stay."""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image

from diffusion.callbacks.validations import Validations

log = logging.getLogger(__name__)


class Pictures(Callback):
    """Draws at the end of a validation, never in the sanity check.

    Only rank 0 draws: nothing here waits for other processes. The seconds that all callbacks of this kind have spent
    are logged as `preview/seconds`. With the EMA callback, wherever it stands in the list, they see the averaged
    weights.

    Args:
        folder: where the files go, `samples` in the run folder.
        validations: says which validations have pictures; None: all of them.
        keep: at most so many files of a kind stay, see `thin`; None: all.
    """

    def __init__(self, folder: Path | str, validations: Validations | None = None, keep: int | None = None) -> None:
        self.folder = Path(folder)
        self.validations = validations
        self.keep = keep

    @abstractmethod
    def draw(self, pl_module: LightningModule, when: str) -> Mapping[str, Path]:
        """Writes files whose names end with `when`; returns them under the names that the loggers are to use."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = self.validations is None or self.validations.drawing
        if trainer.sanity_checking or not due or not trainer.is_global_zero:
            return
        start = time.perf_counter()
        when = f"epoch_{trainer.current_epoch + 1:04d}_step_{trainer.global_step:07d}"  # the epoch, and the steps done
        for path in publish(trainer, lambda: self.draw(pl_module, when)):
            thin(path, self.keep)
        pl_module.log("preview/seconds", time.perf_counter() - start, reduce_fx="sum", rank_zero_only=True)


def publish(trainer: Trainer, draw: Callable[[], Mapping[str, Path]]) -> list[Path]:
    """Gives the files that `draw` writes to the loggers, and returns them. A full disk costs a picture, not the run."""
    try:
        drawn = draw()
        for name, path in drawn.items():
            show(trainer.loggers, name, path, trainer.global_step)
    except OSError as error:
        log.warning("a picture was not written (%s)", error)
        return []
    return list(drawn.values())


def thin(newest: Path, keep: int | None) -> None:
    """Removes files of the kind of `newest`, KINDepoch_0003_step_0001234.png: so many that at most `keep` are left, and
    those of steps yet to come, from a run that went on from an earlier checkpoint."""
    kind, _, _ = newest.name.rpartition("epoch_")
    step = _step(newest)
    files = {_step(path): path for path in newest.parent.glob(f"{kind}epoch_*_step_*{newest.suffix}")}
    stay = spread([taken for taken in files if taken <= step], keep or len(files))
    for taken in files.keys() - stay:
        files[taken].unlink(missing_ok=True)


def spread(steps: Iterable[int], keep: int) -> set[int]:
    """At most `keep` of the steps, evenly spread, the newest among them: the last in each interval of the shortest
    length, of 1, 2, 4, ... steps, that leaves few enough."""
    steps, length = sorted(steps), 1
    while len(stay := {step // length: step for step in steps}) > keep:
        length *= 2
    return set(stay.values())


def _step(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


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
