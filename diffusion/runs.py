"""Run folders: where one is, that it is never reused by accident, and what a resume starts from."""

import os
import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from diffusion import checkpoint
from diffusion.errors import UserError
from diffusion.files import atomic

# Processes that Lightning launches for the other devices read here which run they belong to.
_SHARED = "DIFFUSION_RUN_DIR"
_FIXED = ("network", "schedule", "prediction", "dataset.channels", "dataset.size")


def locate(config: Mapping[str, Any]) -> tuple[Path, Path | None]:
    """The run folder, not made yet, and the checkpoint to go on from, or None.

    Raises UserError where a folder is taken, a checkpoint is missing, or `resume=auto` does not say of which run.
    """
    named, resume = _named(config), config["resume"]
    if resume == "auto" and named is None:
        raise UserError("resume=auto: of which run? Say run.name=... or run.dir=...")
    if resume and resume != "auto":
        ckpt = checkpoint.find(resume)
        folder = named or (ckpt.parent.parent if ckpt.parent.name == "checkpoints" else None)
    else:
        started = resume and any(named.glob("checkpoints/*.ckpt"))
        ckpt = checkpoint.find(named) if started else None
        folder = named
    if _SHARED in os.environ:
        return Path(os.environ[_SHARED]), ckpt
    folder = folder or _new(config)
    if folder.is_dir() and any(folder.iterdir()) and not resume:
        raise UserError(f"{folder} exists: resume=auto continues this run, another run.name starts a new one")
    return folder, ckpt


def create(folder: Path, config: Mapping[str, Any]) -> None:
    """Makes the run folder with its config.yaml. Processes launched from here on find it."""
    if _SHARED in os.environ:
        return
    try:
        with atomic(folder / "config.yaml") as temporary:
            OmegaConf.save(OmegaConf.create(dict(config)), temporary)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); choose another run.root= or run.dir="
        ) from None
    os.environ[_SHARED] = str(folder.absolute())


def _named(config: Mapping[str, Any]) -> Path | None:
    run = config["run"]
    if run["dir"]:
        return Path(run["dir"])
    return Path(run["root"], config["dataset"]["name"], run["name"]) if run["name"] else None


def _new(config: Mapping[str, Any]) -> Path:
    if "RANK" in os.environ:  # started by torchrun: every process would make up a name of its own
        raise UserError("under torchrun the processes must agree on the run folder: say run.name=... or run.dir=...")
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return Path(config["run"]["root"], config["dataset"]["name"], f"{stamp}-{secrets.token_hex(2)}")


def check_same_model(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises UserError where `new` would build another model than the one that config `old` of a checkpoint trained."""
    old, new = OmegaConf.create(dict(old)), OmegaConf.create(dict(new))
    for key in _FIXED:
        before, now = OmegaConf.select(old, key), OmegaConf.select(new, key)
        if before != now:
            raise UserError(
                f"{key} differs from the checkpoint's ({before} -> {now}): resume with the words the run began with, "
                "or start a new run"
            )
