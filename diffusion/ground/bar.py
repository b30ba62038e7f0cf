"""How far some work is: a bar on a terminal, and now and then a line in a log file."""

import sys
from typing import Any, TextIO

from tqdm import tqdm


class Bar(tqdm):
    """tqdm's bar with its rate and the time left. Where stderr is a file or a pipe it is a line at the start, one every
    ten seconds, and one at the end."""

    def __init__(self, *args: Any, **options: Any):
        if sys.stderr.isatty():
            where = {"mininterval": 0.1, "delay": 0.1}  # seconds; what is over at once shows nothing
        else:
            where = {"mininterval": 10.0, "file": _Lines(sys.stderr)}
        super().__init__(*args, **{**where, **options})


class _Lines:
    """What tqdm writes over the state before, with carriage returns, as lines."""

    def __init__(self, file: TextIO):
        self.file = file

    def write(self, text: str) -> None:
        if text.strip():
            self.file.write(f"{text.strip()}\n")

    def flush(self) -> None:
        self.file.flush()
