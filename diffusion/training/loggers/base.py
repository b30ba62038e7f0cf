"""The interface of a run's loggers, and their construction."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from lightning.pytorch.loggers import Logger

from diffusion.evaluation.metrics.base import Score
from diffusion.ground.errors import UserError
from diffusion.runs import build, manifest
from diffusion.training.loggers.metrics_file import MetricsFile


class Result(NamedTuple):
    """A result of an evaluation. figure: a PNG, if there is one."""

    metric: str
    score: Score
    figure: Path | None


@runtime_checkable
class Shows(Protocol):
    """A logger that shows more than the numbers of Lightning's `log_metrics`. Only rank 0 calls these methods.

    step: optimiser steps done. Names may be nested, such as `preview/strip`.
    """

    def picture(self, name: str, path: Path, step: int) -> None:
        """Shows the PNG or GIF at `path`, if the logger supports it."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Shows rows of texts and numbers with the column names."""


def build_loggers(
    nodes: Mapping[str, Mapping[str, Any]], run_folder: Path, run_name: str, config: Mapping[str, Any]
) -> list[Logger]:
    """The loggers of a run: metrics.csv first, then those of `nodes` (conf/logger/), by name.

    run_folder: created if missing. A resumed run appends to its metrics.csv and continues its W&B run. config:
    resolved, in plain containers; a logger may store it. A constructor receives those of run_folder, save_dir (the same
    folder), run_name and config that it accepts.

    Raises UserError for a class that no file of conf/logger/ names, and for a missing package or login.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    made = [_logger(name, node, run_folder, run_name, config) for name, node in nodes.items()]
    return [MetricsFile(run_folder), *made]


def _logger(
    name: str, node: Mapping[str, Any], run_folder: Path, run_name: str, config: Mapping[str, Any] | None = None
) -> Logger:
    offered = {
        "run_folder": run_folder,
        "save_dir": str(run_folder),
        "run_name": run_name,
        "config": dict(config or {}),
    }
    try:
        return build.instantiate(node, offered)
    except ModuleNotFoundError as error:
        raise UserError(f"logger.{name} needs a package that is missing: {' '.join(str(error).split())}") from error


def log_results(run_folder: Path, results: Sequence[Result], step: int) -> None:
    """Adds the results of an evaluation to the loggers of a finished run that show tables and figures, such as W&B: the
    value of each metric as evaluation/<metric>, its table and its figure. Prints a line for a logger that fails."""
    try:
        nodes = manifest.loggers(run_folder)
    except UserError as error:  # a damaged manifest, or the class of a user's own logger, which is not here
        print(f"the results were not logged ({error})")
        return
    for name, node in nodes.items():
        try:
            logger = _logger(name, node, run_folder, run_folder.name)
            if isinstance(logger, Shows):
                _show(logger, results, step)
                logger.finalize("success")
        except Exception as error:  # a service may fail in any way, and the results are on the disk
            print(f"logger.{name}: the results were not logged ({' '.join(str(error).split())[:200]})")


def _show(logger: Any, results: Sequence[Result], step: int) -> None:
    for metric, score, figure in results:
        logger.log_metrics({f"evaluation/{metric}": score.value}, step=step)
        if score.table:
            columns = [*score.table[0]]
            logger.table(f"evaluation/{metric}/table", columns, [[*row.values()] for row in score.table], step)
        if figure is not None:
            logger.picture(f"evaluation/{metric}/figure", figure, step)


def of_numbers_alone(loggers: Sequence[Logger]) -> list[str]:
    """The class names of the loggers that show no pictures."""
    return [type(logger).__name__ for logger in loggers if not isinstance(logger, Shows)]
