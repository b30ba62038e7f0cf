"""Results of measurements: a line for each, and an optional figure file; nothing is overwritten."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from diffusion.evaluation import plots
from diffusion.ground.errors import UserError
from diffusion.ground.files import atomic, json_contents, json_lines, json_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "results.jsonl"
FORMAT = 1  # of a row; 0 had no number


class Results:
    """The measurements of a folder, in its `results.jsonl`: one JSON object per line, the newest last. Several
    processes may append at the same time.

    Every row has `format`, `metric`, `value`, `protocol` (everything that the number depends on besides the model) and
    `model`: two numbers are comparable if metric and protocol are equal. Raises UserError if `folder` is not writable.
    """

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self.added: dict[str, Any] = {}  # the row that this process added last, as it is read back
        self._lock = FileLock(folder / ".results.lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._lock:
                self._bytes()
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another output=") from None

    def rows(self) -> list[dict[str, Any]]:
        """All readable rows, the oldest first; other lines are kept in the file."""
        return json_lines(self._bytes())

    def add(self, row: Mapping[str, Any], figure: "Figure | None" = None) -> list[dict[str, Any]]:
        """Adds a row and its figure, if any, whose file name becomes `figure` of the row. Returns the earlier rows of
        the same measurement: metric, protocol and weights are equal.

        Raises UserError if it cannot be written.
        """
        row = dict(json_contents(json_text({"format": FORMAT, **row})))  # as it is read back
        try:
            with self._lock:
                same = [earlier for earlier in self.rows() if _measured(earlier) == _measured(row)]
                if figure is not None:
                    row = {**row, "figure": plots.write_figure(self._free(row["metric"]), figure).name}
                before = self._bytes()
                line = json_text(row, indent=None).encode()
                with atomic(self.path) as temporary:
                    temporary.write_bytes(before + b"\n" * (before[-1:] not in (b"", b"\n")) + line + b"\n")
        except OSError as error:
            raise UserError(f"{self.path}: the result was not written ({error.strerror}); free space, repeat") from None
        self.added = row
        return same

    def _bytes(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    def _free(self, metric: str) -> Path:
        """The path of the next figure."""
        names = [re.fullmatch(rf"{re.escape(metric)}_(\d+)\.png", file.name) for file in self.path.parent.iterdir()]
        number = 1 + max((int(name[1]) for name in names if name), default=0)
        return self.path.with_name(f"{metric}_{number:04d}.png")


def _measured(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Metric, protocol and weights of a row."""
    model = row.get("model")
    return row.get("metric"), row.get("protocol"), model.get("weights_sha256") if isinstance(model, Mapping) else None
