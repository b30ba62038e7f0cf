"""Run folders: their location, their protection from accidental reuse, and what a resume starts from."""

import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from diffusion.config import conf_folders
from diffusion.config.registry import WIRING
from diffusion.config.value_types import File, Name
from diffusion.ground import launch
from diffusion.ground.errors import UserError
from diffusion.ground.files import atomic
from diffusion.runs import checkpoint, manifest

# The environment variable from which the processes of the other devices learn their run folder.
_SHARED = "DIFFUSION_RUN_DIR"
_LOCK = ".lock"
_SHAPE = ("dataset.channels", "dataset.size", "dataset.shape")
_FREE = re.compile(r"conditioning\.\w+\.drop")  # of the training, not of the network
_NETWORK = ("network", "self_conditioning", "conditioning", *_SHAPE)
# Rules of a run for its data, its validation split, its learning rate and its rounding: a resume keeps those of the
# first session.
RULES = ("dataset.split", "dataset.range", "optimizer.warmup_share", "lr_schedule.steps", "kernels")
# Computed from the training data, and part of the model.
STATISTICS = tuple(f"conditioning.vector.{key}" for key in ("mean", "std", "low", "high"))
_UNLESS_GIVEN = {"lr_schedule.steps": None, "kernels": "auto"}  # a value other than this one was set on purpose
_UNCHANGED = {"full": (*_NETWORK, "schedule", "prediction", "space", "dataset.name"), "weights": _NETWORK}


class RunKeys(TypedDict):
    """The location of a run: the key `run` of conf/train.yaml."""

    root: File
    name: Name | None
    dir: File | None


class Run:
    """The folder of one training run. As a context manager it is locked against a second run.

    The lock is the operating system's, so it ends with the process, however that ends.

    folder: of the run; it may not exist before `create`.
    ckpt:   the checkpoint to start from, or None.

    Raises: UserError if the folder is in use, a checkpoint is missing, or the config does not determine the run.
    """

    def __init__(self, config: Mapping[str, Any]):
        self.config = config
        self._lock: FileLock | None = None
        self._made: list[Path] = []  # by `create`: the folder, if there was none or an empty one, and those around it
        resume, named = config["resume"], _named(config)
        _check_resume(config, named)
        checked = None if resume in (None, "auto") else checkpoint.find(resume)
        self.folder = self._place(named, checked)
        if launch.rank() == 0:
            self._check_free()
            if self.folder.is_dir():
                self._take()
        started = resume == "auto" and any(self.folder.glob("checkpoints/*.ckpt"))
        self.ckpt = checkpoint.find(self.folder) if started else checked

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._lock is not None:
            with suppress(OSError):
                if os.listdir(self.folder) == [_LOCK]:  # refused before anything else was written
                    (self.folder / _LOCK).unlink()
            self._lock.release()

    def create(self, contents: Mapping[str, Any], step: int) -> None:
        """Makes the folder with its config.yaml, manifest.json and conf/, a copy of the user's yaml files.
        Processes launched later find it.

        contents: of the manifest; step: where this session begins.
        """
        if launch.rank() != 0:
            return
        fresh, around = self._is_empty(), [folder for folder in self.folder.parents if not folder.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take()
            self._check_free()
            self._made = [self.folder, *around] if fresh else []
            with atomic(self.folder / "config.yaml") as temporary:
                OmegaConf.save(OmegaConf.create(dict(self.config)), temporary)
            conf_folders.copy_user(self.folder / "conf")
            manifest.write(self.folder, contents, step)
        except OSError as error:
            self.abandon()
            raise UserError(
                f"{self.folder}: cannot be written ({error.strerror}); choose another run.root= or run.dir="
            ) from None
        os.environ[_SHARED] = str(self.folder.absolute())

    def abandon(self) -> None:
        """Removes what `create` made, of a run that has not trained one step, so that its command can be repeated."""
        self.__exit__()
        for folder in self._made[:1]:
            shutil.rmtree(folder, ignore_errors=True)
        for folder in self._made[1:]:
            with suppress(OSError):  # not empty
                folder.rmdir()

    def _place(self, named: Path | None, ckpt: Path | None) -> Path:
        if launch.rank() != 0 and _SHARED in os.environ:
            return Path(os.environ[_SHARED])
        if named is not None:
            return named
        if ckpt and self.config["resume_mode"] == "full" and ckpt.parent.name == "checkpoints":
            return checkpoint.run_folder(ckpt)
        return _new(self.config)

    def _take(self) -> None:
        if self._lock is not None:
            return
        lock = FileLock(self.folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.folder}: another process is training there; wait for it, or choose another run.name="
            ) from None
        self._lock = lock

    def _is_empty(self) -> bool:
        return not self.folder.is_dir() or {file.name for file in self.folder.iterdir()} <= {_LOCK}

    def _check_free(self) -> None:
        goes_on = self.config["resume"] and self.config["resume_mode"] == "full"
        if not goes_on and not self._is_empty():
            raise UserError(f"{self.folder} exists: resume=auto continues this run, another run.name starts a new one")


def check_same_model(old: Mapping[str, Any], new: Mapping[str, Any], mode: str = "full") -> None:
    """Raises UserError if `new` would build another model than the config `old` of a checkpoint.

    mode: `full` or `weights`, for which only the network itself must be the same.
    """
    for key, (before, now) in manifest.differences(old, new).items():
        if _within(key, _UNCHANGED[mode]):
            instead = ", start from its weights (resume_mode=weights)" if not _within(key, _NETWORK) else ""
            raise UserError(
                f"{key} differs from the checkpoint's ({before} -> {now}): resume with the overrides of the first "
                f"session{instead}, or start a new run"
            )


def keep_rules(
    config: Mapping[str, Any], old: Mapping[str, Any], rules: Sequence[str] = RULES
) -> dict[str, tuple[Any, Any]]:
    """Copies the `rules` of `old`, the config of a checkpoint, into `config`: a new default, or an override forgotten
    on resume, never moves training images into validation. Returns the changes, dotted key -> (kept, given)."""
    found = {}
    for rule in rules:
        section, _, key = rule.rpartition(".")
        before, now = _section(old, section), _section(config, section)
        if before is None or now is None or before.get("_target_") != now.get("_target_"):
            continue
        if rule in STATISTICS and len(before.get(key, ())) != len(now.get(key, ())):
            continue  # of other columns: another model
        if rule in _UNLESS_GIVEN and now.get(key) != _UNLESS_GIVEN[rule]:
            continue
        if key in before and key in now and before[key] != now[key]:
            found[rule] = before[key], now[key]
            now[key] = before[key]
    return found


def keep_statistics(config: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    """Fills the unset values of the space with those of `old`, the config of a checkpoint."""
    space, before = config["space"], old.get("space", {})
    if space["_target_"] == before.get("_target_"):
        space |= {key: before.get(key) for key, value in space.items() if value is None}


def _section(config: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """The section at a dotted key; the whole config for an empty key; None if there is no such section."""
    found: Any = config
    for part in key.split(".") if key else ():
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The differences between the config of a checkpoint and this one that matter: dotted key -> (old, new)."""
    aside = {*manifest.OF_THE_SESSION, *WIRING}
    return {key: each for key, each in manifest.differences(old, new).items() if key.partition(".")[0] not in aside}


def _within(key: str, sections: Sequence[str]) -> bool:
    inside = any(key == section or key.startswith(f"{section}.") for section in sections)
    return inside and not _FREE.fullmatch(key)


def _check_resume(config: Mapping[str, Any], named: Path | None) -> None:
    resume, mode = config["resume"], config["resume_mode"]
    if mode == "weights" and resume in (None, "auto"):
        raise UserError("resume_mode=weights begins a new run: from which checkpoint? Set resume=RUN")
    if resume == "auto" and named is None:
        raise UserError("resume=auto: which run? Set run.name=... or run.dir=...")


def _named(config: Mapping[str, Any]) -> Path | None:
    run = config["run"]
    if run["dir"]:
        return Path(run["dir"])
    if run["name"] and (run["name"] in (".", "..") or Path(run["name"]).name != run["name"]):
        raise UserError(f"run.name={run['name']}: expected the name of a folder; use run.dir= for a path")
    return Path(run["root"], config["dataset"]["name"], run["name"]) if run["name"] else None


def _new(config: Mapping[str, Any]) -> Path:
    if "RANK" in os.environ:  # started by torchrun: each process would choose a different name
        raise UserError("under torchrun the processes must agree on the run folder: set run.name=... or run.dir=...")
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return Path(config["run"]["root"], config["dataset"]["name"], f"{stamp}-{secrets.token_hex(2)}")
