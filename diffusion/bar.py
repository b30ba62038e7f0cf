"""How far some work is: a bar on a terminal, and now and then a line in a log file."""

import sys
from typing import Any, TextIO

from tqdm import tqdm


class Bar(tqdm):
    """tqdm's bar with its rate and the time left, for work that may well be over at once: then nothing is shown.

    Where stderr is a file or a pipe, there is a line of its own every ten seconds.
    """

    def __init__(self, *args: Any, **options: Any):
        terminal = sys.stderr.isatty()
        every = 0.1 if terminal else 10.0  # seconds
        file = sys.stderr if terminal else _Lines(sys.stderr)
        super().__init__(*args, mininterval=every, delay=every, file=file, **options)


class _Lines:
    """What tqdm writes over the state before, with carriage returns, as lines."""

    def __init__(self, file: TextIO):
        self.file = file

    def write(self, text: str) -> None:
        if text.strip():
            self.file.write(f"{text.strip()}\n")

    def flush(self) -> None:
        self.file.flush()
