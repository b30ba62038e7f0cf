"""The commands that repeat a run, and those that make what a report of it lacks."""

import shlex
from collections.abc import Mapping
from typing import Any

from diffusion.config import conf_folders
from diffusion.report.run import Run

NEIGHBOURS = "memorisation"  # the metric whose picture shows them
_PROGRAMS = {"train.py": "python train.py", "diffusion-train": "diffusion-train", "__main__.py": "python -m diffusion"}


def commands(run: Run) -> dict[str, str]:
    """What each does -> the command."""
    found = {}
    if typed := _typed(run):
        found["the training, as it was typed at first"] = typed
    found["the training, from its manifest.json"] = _command("train", f"rerun={run.folder}")
    found["samples of it"] = _command("sample", f"ckpt={run.folder}")
    return found


def _typed(run: Run) -> str | None:
    """None where it was started by another program, such as a notebook, whose arguments were others."""
    session = run.manifest["sessions"][0] if run.manifest["sessions"] else run.manifest
    line = str(session.get("command", "") if isinstance(session, Mapping) else "")
    program, space, rest = line.partition(" ")
    return f"{_PROGRAMS[program]}{space}{rest}" if program in _PROGRAMS else None


def missing(run: Run) -> dict[str, str]:
    """What each command would add to the report -> the command."""
    ckpt, metrics = f"ckpt={run.folder}", [*conf_folders.choices("metric")]
    found = {
        "a measured quality": _command("evaluate", ckpt, f"metric={metrics[0]}"),
        "samplers beside each other": _command("compare", ckpt),
    }
    if NEIGHBOURS in metrics:
        found["nearest neighbours"] = _command("evaluate", ckpt, f"metric={NEIGHBOURS}")
    return found


def _command(name: str, *words: Any) -> str:
    return f"python {name}.py {shlex.join(map(str, words))}"
