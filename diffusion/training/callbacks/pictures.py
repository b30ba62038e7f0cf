"""Base class of callbacks that draw pictures: timing, loggers, and which files are kept."""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from diffusion.config.value_types import Count
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.training.cadence import Cadence
from diffusion.training.callbacks.validations import Validations
from diffusion.training.lightning_access import model_of
from diffusion.training.loggers.base import Shows

log = logging.getLogger(__name__)


class Pictures(Callback):
    """Base class of callbacks that draw pictures at the end of validations, never in the sanity check.

    Only rank 0 draws, without waiting for other processes. The time of all such callbacks together is logged as
    `preview/seconds`. With the EMA callback, at any position in the list, they see the averaged weights.

    Args:
        samples: the folder of the files, `samples` in the run folder.
        validations: decides which validations have pictures; None: all of them.
        keep: the maximum number of files of a kind, see `thin`; None: all.
    """

    runs_network = False
    """Whether `draw` runs the network, on rank 0 only: left out with a strategy that shards the network."""

    cadence: Cadence | None = None
    """The cadence of all pictures of the run; None: another callback sets it."""

    def __init__(self, samples: Path | str, validations: Validations | None = None, keep: Count | None = 50) -> None:
        self.folder = Path(samples)
        self.validations = validations
        self.keep = keep

    def check(self, model: LitDiffusion, given: Iterable[str] = (), prefix: str = "") -> None:
        """Called before training, before the run folder is made. Raises UserError if the pictures cannot be drawn from
        `model`. given: the keys of the command line; those of this callback begin with `prefix`."""

    @abstractmethod
    def draw(self, pl_module: LitDiffusion, when: str) -> Mapping[str, Path]:
        """Writes files whose names end with `when`; returns them by the names that the loggers use."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = self.validations is None or self.validations.drawing
        if trainer.sanity_checking or not due or not trainer.is_global_zero:
            return
        start, model = time.perf_counter(), model_of(pl_module)
        when = f"epoch_{trainer.current_epoch + 1:04d}_step_{trainer.global_step:07d}"  # the epoch, and the steps done
        for path in publish(trainer, lambda: self.draw(model, when)):
            thin(path, self.keep)
        pl_module.log("preview/seconds", time.perf_counter() - start, reduce_fx="sum", rank_zero_only=True)


def publish(trainer: Trainer, draw: Callable[[], Mapping[str, Path]]) -> list[Path]:
    """Passes the files that `draw` writes to the loggers, and returns them. A disk error is logged, not raised."""
    try:
        drawn = draw()
        for name, path in drawn.items():
            show(trainer.loggers, name, path, trainer.global_step)
    except OSError as error:
        log.warning("a picture was not written (%s)", error)
        return []
    return list(drawn.values())


def thin(newest: Path, keep: int | None) -> None:
    """Removes files of the kind of `newest`, KINDepoch_0003_step_0001234.png, so that at most `keep` are left. Also
    removes those of later steps, which a run resumed from an earlier checkpoint draws again."""
    kind, _, _ = newest.name.rpartition("epoch_")
    step = _step(newest)
    files = {_step(path): path for path in newest.parent.glob(f"{kind}epoch_*_step_*{newest.suffix}")}
    stay = spread([taken for taken in files if taken <= step], keep or len(files))
    for taken in files.keys() - stay:
        files[taken].unlink(missing_ok=True)


def spread(steps: Iterable[int], keep: int) -> set[int]:
    """At most `keep` of the steps, evenly spread, with the newest: the last in each interval of 1, 2, 4, ... steps, the
    shortest length that leaves few enough."""
    steps, length = sorted(steps), 1
    while len(stay := {step // length: step for step in steps}) > keep:
        length *= 2
    return set(stay.values())


def _step(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def show(loggers: Iterable[Logger], name: str, path: Path, step: int) -> None:
    """Passes a PNG or a GIF to the loggers that show pictures."""
    for logger in loggers:
        if isinstance(logger, Shows):
            logger.picture(name, path, step)
