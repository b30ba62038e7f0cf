"""Pictures of a run: what they cost, who is given them, and which of them stay."""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from diffusion.config.values import Count
from diffusion.lit.module import LitDiffusion
from diffusion.training.callbacks.cadence import Cadence
from diffusion.training.callbacks.validations import Validations
from diffusion.training.loggers.base import Shows

log = logging.getLogger(__name__)


class Pictures(Callback):
    """Draws at the end of a validation, never in the sanity check: what a callback of pictures inherits from.

    Only rank 0 draws: nothing here waits for other processes. The seconds that all callbacks of this kind have spent
    are logged as `preview/seconds`. With the EMA callback, wherever it stands in the list, they see the averaged
    weights.

    Args:
        samples: the folder of the files, `samples` in the run folder.
        validations: says which validations have pictures; None: all of them.
        keep: at most so many files of a kind stay, see `thin`; None: all.
    """

    runs_network = False
    """Whether it asks the network, by itself, on rank 0: a strategy that splits the network over processes has no such
    pictures."""

    cadence: Cadence | None = None
    """When the run is to have pictures, those of the other callbacks too; None: that is left to others."""

    def __init__(self, samples: Path | str, validations: Validations | None = None, keep: Count | None = 50) -> None:
        self.folder = Path(samples)
        self.validations = validations
        self.keep = keep

    def check(self, model: LitDiffusion, given: Iterable[str] = (), prefix: str = "") -> None:
        """Before a training, when there is no run folder yet: raises UserError for pictures that cannot be drawn of
        `model`. given: the keys of the command line; those of this callback begin with `prefix`."""

    @abstractmethod
    def draw(self, pl_module: LitDiffusion, when: str) -> Mapping[str, Path]:
        """Writes files whose names end with `when`; returns them under the names that the loggers are to use."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
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
    """Gives a PNG or a GIF to the loggers that show pictures."""
    for logger in loggers:
        if isinstance(logger, Shows):
            logger.picture(name, path, step)
