"""A logger: any of Lightning's. With `picture` and `table` it shows more than numbers."""

import json
from pathlib import Path

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from diffusion.config.value_types import checked


@checked
class Lines(Logger):
    """A line of JSON for whatever there is to log, in a file of the run folder.

    run_folder, run_name: given by the program. file: its name.
    """

    name, version = None, ""  # abstract in Lightning's

    def __init__(self, run_folder: Path, run_name: str, file: str = "lines.jsonl"):
        super().__init__()
        self.file, self.name = run_folder / file, run_name

    @rank_zero_only
    def log_metrics(self, metrics, step=None) -> None:
        self._write(step, **metrics)

    def log_hyperparams(self, params, *args, **kwargs) -> None:
        """They are in the manifest."""

    def picture(self, name, path, step) -> None:
        self._write(step, picture=name, path=str(path))

    def table(self, name, columns, rows, step) -> None:
        self._write(step, table=name, rows=[dict(zip(columns, row, strict=True)) for row in rows])

    def _write(self, step, **values) -> None:
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
