"""The progress of a run when a checkpoint was saved, from the counters of Lightning and our callbacks in it."""

from collections.abc import Mapping
from typing import Any

_TIMER = "Timer"  # Lightning's callback of max_minutes


def epochs_done(saved: Mapping[str, Any]) -> int:
    """The epochs that a checkpoint has completed, including the validation of the last."""
    loop = saved["loops"]["fit_loop"]
    validation = loop["epoch_loop.val_loop.batch_progress"]["total"]
    owes = validation["started"] > validation["processed"]
    ended = loop["epoch_loop.batch_progress"]["is_last_batch"] and not owes
    return loop["epoch_progress"]["current"]["processed"] + ended


def seconds_trained(saved: Mapping[str, Any]) -> float:
    """Minutes of all sessions of the run of a checkpoint, if a limit in minutes has counted them."""
    return saved.get("callbacks", {}).get(_TIMER, {}).get("time_elapsed", {}).get("train", 0)


def limit_reached(limits: Mapping[str, Any], saved: Mapping[str, Any]) -> str | None:
    """The limit that the saved run has reached, such as max_steps=1000, or None. limits: the section `trainer`."""
    for name, done in (
        ("max_steps", saved["global_step"]),
        ("max_epochs", epochs_done(saved)),
        ("max_minutes", seconds_trained(saved) / 60),
    ):
        if limits[name] is not None and done >= limits[name]:
            return f"{name}={limits[name]}"
    return None
