"""The contents of a run folder as plain data, and messages about unreadable files."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonpath, relpath
from pathlib import Path
from typing import Any

from diffusion.config.registry import TARGET
from diffusion.ground import archive
from diffusion.ground.errors import UserError, reading
from diffusion.ground.files import json_lines
from diffusion.runs import manifest, saved_counts

METRICS, CHECKPOINT = "metrics.csv", Path("checkpoints", "last.ckpt")


@dataclass
class Series:
    """A metric against the step. odd: number of values that are inf or nan; they are not in `values`."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    odd: int = 0

    def add(self, step: int, value: float) -> None:
        if not math.isfinite(value):
            self.odd += 1
        else:
            self.steps.append(step)
            self.values.append(value)

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Saved:
    """Progress of a run from its newest checkpoint. reached: the limit that ended it, such as max_steps=1000, or
    None."""

    step: int
    images: int
    seconds: float
    skipped: int
    reached: str | None

    @classmethod
    def of(cls, contents: Mapping[str, Any], limits: Mapping[str, Any]) -> "Saved":
        callbacks = contents["callbacks"]
        return cls(
            step=int(contents["global_step"]),
            images=int(callbacks["Progress"]["images"]),
            seconds=float(callbacks["Progress"]["seconds"]),
            skipped=int(callbacks["GradientGuard"]["skipped"]),
            reached=saved_counts.limit_reached(limits, contents),
        )


@dataclass(frozen=True)
class Run:
    """name: unique in the report. rows: of evaluation/results.jsonl, the oldest first. unread: a line for each file
    that exists but is unreadable."""

    folder: Path
    name: str
    manifest: Mapping[str, Any]
    saved: Saved | None
    series: Mapping[str, Series]
    rows: Sequence[Mapping[str, Any]]
    unread: Sequence[str]

    @property
    def config(self) -> Mapping[str, Any]:
        return self.manifest["config"]

    def about(self, section: str) -> Mapping[str, Any]:
        """A section of the manifest; empty if missing."""
        found = self.manifest.get(section)
        return found if isinstance(found, Mapping) else {}

    def last(self, metric: str) -> float | None:
        """The newest value of a metric."""
        series = self.series.get(metric)
        return series.values[-1] if series else None

    def is_a(self, section: str, *names: str) -> bool:
        """Whether a section of the config names one of these classes."""
        node = self.config.get(section)
        return isinstance(node, Mapping) and str(node.get(TARGET)).rpartition(".")[2] in names


def runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in some folders. Raises UserError if one contains no run or is given twice."""
    absolute = [folder.resolve() for folder in folders]
    for number, (folder, path) in enumerate(zip(folders, absolute, strict=True)):
        if path in absolute[:number]:
            raise UserError(f"{folder}: this run is given twice: give it once")
    return [_run(folder, name) for folder, name in zip(folders, names(absolute), strict=True)]


def names(paths: Sequence[Path]) -> list[str]:
    """The shortest names that distinguish the folders."""
    if len({path.name for path in paths}) == len(paths):
        return [path.name for path in paths]
    common = commonpath(paths)
    return [relpath(path, common) for path in paths]


def _run(folder: Path, name: str) -> Run:
    if not folder.is_dir():
        raise UserError(f"{folder}: {'a file' if folder.exists() else 'no such folder'}; expected a run folder")
    unread: list[str] = []
    about = manifest.read(folder)
    return Run(
        folder=folder,
        name=name,
        manifest=about,
        saved=_saved(folder / CHECKPOINT, about["config"].get("trainer"), unread),
        series=_series(folder / METRICS, unread),
        rows=_rows(folder / "evaluation" / "results.jsonl", unread),
        unread=unread,
    )


def _saved(path: Path, limits: Any, unread: list[str]) -> Saved | None:
    if not path.exists():
        return None
    try:
        return Saved.of(archive.glance(path, "a checkpoint of this program"), limits)
    except UserError as error:
        unread.append(str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        unread.append(f"{path}: not a checkpoint of this program ({type(error).__name__}: {error})")
    return None


def _series(path: Path, unread: list[str]) -> dict[str, Series]:
    found: dict[str, Series] = {}
    if not path.exists():
        return found
    try:
        with reading(path, "a table of metrics"), open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                _add(found, row)
    except UserError as error:
        unread.append(str(error))
    return found


def _add(found: dict[str, Series], row: Mapping[str, Any]) -> None:
    """Adds a row; Lightning counts its steps from 0."""
    if not (row.get("step") or "").isdecimal():
        return
    for name, text in row.items():
        if name in ("step", "epoch") or not text or not isinstance(text, str):
            continue
        try:
            found.setdefault(name, Series()).add(int(row["step"]) + 1, float(text))
        except ValueError:
            continue


def _rows(path: Path, unread: list[str]) -> list[dict[str, Any]]:
    try:
        return json_lines(path.read_bytes()) if path.exists() else []
    except OSError as error:
        unread.append(f"{path}: cannot be read ({error.strerror})")
        return []
