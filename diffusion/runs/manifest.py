"""manifest.json of a run folder: what is needed to repeat a run, or to explain a different result."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diffusion.config import upgrades
from diffusion.ground.errors import UserError, reading
from diffusion.ground.files import read_json, write_json

NAME = "manifest.json"
_SHOWS = ("callbacks", "logger")
# Keys of the config about a session (where it starts, how it is shown), which are not part of what is trained.
OF_THE_SESSION = ("run", "resume", "resume_mode", "rerun", *_SHOWS)
_PACKAGES = ("diffusion", "torch", "torchvision", "lightning", "hydra-core", "numpy", "pillow", "wandb")
_ROOT = Path(__file__).resolve().parent.parent.parent
_COMPARED = ("versions", "git", "data", "hardware")


def describe(config: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a run that begins now. config: resolved, in plain containers; data: from `Data.describe`."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": config["seed"],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **program(),
        "data": dict(data),
        "hardware": _hardware(),
        **upgrades.stamped(config),
    }


def program() -> dict[str, Any]:
    """The commit of this program, if it is a checkout, and the versions of it and of its dependencies."""
    return {
        "git": _git(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
    }


def write(folder: Path, contents: Mapping[str, Any], step: int) -> None:
    """Writes the manifest of a session that begins at `step`, with the list of earlier sessions."""
    earlier = read(folder)["sessions"] if (folder / NAME).exists() else []
    session = {"started": contents["started"], "step": step, "command": contents["command"]}
    write_json(folder / NAME, {**contents, "sessions": [*earlier, session]})


def loggers(run: Path) -> dict[str, Any]:
    """The loggers of a run by name, ready to be built; none without a manifest. Raises UserError if it is damaged, or a
    class is missing."""
    path = run / NAME
    if not path.exists():
        return {}
    with reading(path, "a manifest of this program"):
        contents = read_json(path)
        only = {**contents, "config": {"logger": contents["config"].get("logger") or {}}}
        return dict(upgrades.upgraded(only, path)["config"].get("logger", {}))


def read(run: str | Path) -> dict[str, Any]:
    """The manifest of a run folder, without callbacks and loggers in its config, whose classes may be missing here.

    Raises UserError if there is none, or it is not a manifest of this program.
    """
    path = Path(run) if Path(run).is_file() else Path(run) / NAME
    try:
        contents = read_json(path)
        if isinstance(contents["config"], dict) and isinstance(contents["sessions"], list):
            config = {key: value for key, value in contents["config"].items() if key not in _SHOWS}
            return upgrades.upgraded({**contents, "config": config}, path)
        raise ValueError("no config inside")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{run}: no {NAME} ({error.strerror}); expected a run folder that train.py wrote") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a manifest of this program ({error})") from None


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The `differences` between two manifests, without those of the config."""
    before, now = ({key: each.get(key) for key in _COMPARED} for each in (old, new))
    found = differences(before, now)
    found.pop("data.name", None)  # in the config; what matters here is the fingerprint
    return found


def differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (old, new), for each value in which two trees of dicts differ; None stands for a missing value.

    Two nodes of different classes (`_target_`) differ as a whole.
    """
    both = isinstance(old, Mapping) and isinstance(new, Mapping)
    if not both or old.get("_target_") != new.get("_target_"):
        return {} if old == new else {prefix: (_short(old), _short(new))}
    found = {}
    for key in sorted({*old, *new}):
        found |= differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
    return found


def text(found: Mapping[str, tuple[Any, Any]]) -> str:
    """Differences as one line: a 1 -> 2, b x -> y."""
    return ", ".join(f"{key} {old} -> {new}" for key, (old, new) in found.items())


def _short(value: Any) -> Any:
    return value["_target_"].rpartition(".")[2] if isinstance(value, Mapping) and "_target_" in value else value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the tree that contains this package, and whether it was changed since; None if it is no checkout."""
    if not (_ROOT / ".git").exists():
        return None
    try:
        commit, status = (
            subprocess.run(["git", "-C", _ROOT, *args], capture_output=True, text=True, check=True, timeout=20).stdout
            for args in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(status.strip())}


def _hardware() -> dict[str, Any]:
    import torch

    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),  # sums in another order round otherwise
        "gpus": [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
