"""Write a report of one or several runs as one HTML file that needs no network.

usage: python report.py RUN_FOLDER [RUN_FOLDER ...] [OPTION] [KEY=VALUE] ...

  python report.py runs/mnist/first                      writes runs/mnist/first/report.html
  python report.py runs/mnist/first runs/mnist/second    a table of both, and their curves in common charts
  python report.py runs/mnist/* output=mnist.html
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypedDict

from annotated_types import Len
from omegaconf import DictConfig

from diffusion.config.plain import plain
from diffusion.config.value_parsers import Bare
from diffusion.config.value_types import File
from diffusion.ground.errors import UserError
from diffusion.ground.quiet import quiet
from diffusion.report import page


class ReportKeys(TypedDict):
    """conf/report.yaml."""

    runs: Annotated[Sequence[File], Len(1), Bare()]
    output: File | None


def run(composed: Annotated[DictConfig, ReportKeys]) -> Path:
    """Writes the report that `conf/report.yaml` describes. Returns its file; raises UserError for user errors."""
    quiet()
    config = plain(composed)
    return page.write([Path(each) for each in config["runs"]], _file(config["output"]))


def _file(output: str | None) -> Path | None:
    """The file `output`. Raises UserError unless it ends in .html or .htm: no other file is ever replaced."""
    if output is None or Path(output).suffix in (".html", ".htm"):
        return None if output is None else Path(output)
    raise UserError(f"output={output}: expected a file NAME.html")
