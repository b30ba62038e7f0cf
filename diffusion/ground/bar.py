"""Progress of a task: a bar on a terminal, periodic lines in a log file."""

import sys
from typing import Any, TextIO

from tqdm import tqdm


class Bar(tqdm):
    """The bar of tqdm with its rate and the time left. If stderr is a file or a pipe, a line at the start, one every
    ten seconds, and one at the end."""

    def __init__(self, *args: Any, **options: Any):
        if sys.stderr.isatty():
            where = {"mininterval": 0.1, "delay": 0.1}  # seconds; very short tasks show nothing
        else:
            where = {"mininterval": 10.0, "file": _Lines(sys.stderr)}
        super().__init__(*args, **{**where, **options})


class _Lines:
    """Writes the updates of tqdm as lines, instead of overwriting with carriage returns."""

    def __init__(self, file: TextIO):
        self.file = file

    def write(self, text: str) -> None:
        if text.strip():
            self.file.write(f"{text.strip()}\n")

    def flush(self) -> None:
        self.file.flush()
