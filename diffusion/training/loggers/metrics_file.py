"""`metrics.csv`: the numbers of a run, in the run folder."""

import csv
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from diffusion.ground.files import atomic

log = logging.getLogger(__name__)


def forget_after(run_folder: Path, step: int) -> None:
    """Removes from metrics.csv what a killed session logged after the checkpoint of `step`: the resumed session logs it
    again."""
    path = run_folder / "metrics.csv"
    if path.exists():
        names, rows = _read(path)
        _write(path, names, [row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) < step])


class MetricsFile(CSVLogger):
    """`metrics.csv` in the run folder itself, written on every log call; and `tables/` beside it."""

    def __init__(self, run_folder: Path) -> None:
        super().__init__(run_folder, name="", version="", flush_logs_every_n_steps=1)

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if not isinstance(self._experiment, ExperimentWriter):
            self._experiment = _AppendingWriter(self.log_dir)
        return self._experiment

    def picture(self, name: str, path: Path, step: int) -> None:
        """Does nothing: the file is already in the run folder."""

    @rank_zero_only
    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Writes `tables/NAME_step_0001234.csv`."""
        path = Path(self.log_dir) / "tables" / f"{name}_step_{step:07d}.csv"
        with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows])


class _AppendingWriter(ExperimentWriter):
    _warned = False

    def _check_log_dir_exists(self) -> None:
        """Keeps the file of an earlier session and its columns, where Lightning would delete it."""
        if os.path.exists(self.metrics_file_path):
            self.metrics_keys, _ = _read(Path(self.metrics_file_path))

    def save(self) -> None:
        """Appends the logged rows; new columns rewrite the file atomically. If the disk is full, rows are kept for the
        next call, and no partial row stays in the file."""
        if not self.metrics:
            return
        path, names = Path(self.metrics_file_path), sorted({*self.metrics_keys, *set().union(*self.metrics)})
        try:
            if names != self.metrics_keys:
                _write(path, names, _read(path)[1] if path.exists() else [])
                self.metrics_keys = names
            size = path.stat().st_size
            try:
                with open(path, "a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, names).writerows(self.metrics)
            except OSError:
                os.truncate(path, size)
                raise
            self.metrics, self._warned = [], False
        except OSError as error:
            if not self._warned:
                log.warning("%s cannot be written (%s): its rows are kept for later", path, error.strerror)
            self._warned = True


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The names of the columns, and the rows."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return list(rows.fieldnames or []), list(rows)


def _write(path: Path, names: list[str], rows: list[dict[str, str]]) -> None:
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
