"""Command lines that repeat a run, and those that produce parts missing from its report."""

import shlex
from collections.abc import Mapping
from typing import Any

from diffusion.config import conf_folders
from diffusion.report.run import Run

NEIGHBOURS = "memorisation"  # the metric whose figure shows them
_PROGRAMS = {"train.py": "python train.py", "diffusion-train": "diffusion-train", "__main__.py": "python -m diffusion"}


def commands(run: Run) -> dict[str, str]:
    """Description -> command."""
    found = {}
    if typed := _typed(run):
        found["the training, as first typed"] = typed
    found["the training, from its manifest.json"] = _command("train", f"rerun={run.folder}")
    found["samples of it"] = _command("sample", f"ckpt={run.folder}")
    return found


def _typed(run: Run) -> str | None:
    """The original command line; None if it was started by another program, such as a notebook."""
    session = run.manifest["sessions"][0] if run.manifest["sessions"] else run.manifest
    line = str(session.get("command", "") if isinstance(session, Mapping) else "")
    program, space, rest = line.partition(" ")
    return f"{_PROGRAMS[program]}{space}{rest}" if program in _PROGRAMS else None


def missing(run: Run) -> dict[str, str]:
    """Missing part of the report -> the command that adds it."""
    ckpt, metrics = f"ckpt={run.folder}", [*conf_folders.choices("metric")]
    found = {
        "a measured quality": _command("evaluate", ckpt, f"metric={metrics[0]}"),
        "samplers beside each other": _command("compare", ckpt),
    }
    if NEIGHBOURS in metrics:
        found["nearest neighbours"] = _command("evaluate", ckpt, f"metric={NEIGHBOURS}")
    return found


def _command(name: str, *overrides: Any) -> str:
    return f"python {name}.py {shlex.join(map(str, overrides))}"
