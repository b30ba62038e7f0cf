"""The config of a run as a table, and differences from the defaults and between runs."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion.config import conf_folders
from diffusion.config.plain import plain
from diffusion.config.registry import TARGET
from diffusion.report.run import Run
from diffusion.runs import compose, manifest


def changed(run: Run) -> dict[str, tuple[str, str]]:
    """Dotted key -> (default, value) of all settings of a run that differ from the defaults of `train.py`."""
    found = manifest.differences(_defaults(conf_folders.user()), run.config)
    return {key: (text(old), text(new)) for key, (old, new) in found.items() if _is_trained(key)}


@functools.cache
def _defaults(_: Path | None) -> Mapping[str, Any]:
    config = plain(compose.compose("train"))
    config.pop("given")
    return config


def between(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Dotted key -> the value of each run, if not the same in all; an empty text for a missing key."""
    tables = [flat(run.config) for run in runs]
    keys = dict.fromkeys(key for table in tables for key in table if _is_trained(key))
    rows = {key: [table.get(key, "") for table in tables] for key in keys}
    return {key: values for key, values in rows.items() if len({*values}) > 1}


def _is_trained(key: str) -> bool:
    return key.partition(".")[0] not in manifest.OF_THE_SESSION


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted key -> value, sorted by key; the key of a section that names a class has that name as its value."""
    found: dict[str, str] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if name == TARGET:
            found[prefix.removesuffix(".")] = str(value).rpartition(".")[2]
        elif isinstance(value, Mapping):
            found |= flat(value, f"{key}.")
        else:
            found[key] = text(value)
    return dict(sorted(found.items()))


def text(value: Any) -> str:
    """A value as it is typed on the command line."""
    return value if isinstance(value, str) else json.dumps(value, default=str).replace("Infinity", "inf")
