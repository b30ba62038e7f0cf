"""The folders of yaml files: conf/ of the package, and optionally a folder of the user.

The user's folder adds choices to any group, commands, and parts of a module in its parent folder. It is trusted,
because the user named it: by the option --config-dir, or by the environment variable that child processes and sweeps
read.
"""

import functools
import os
import re
import shutil
import sys
from pathlib import Path

from diffusion.config import yaml_checks
from diffusion.ground.errors import UserError

VARIABLE = "DIFFUSION_CONFIG_DIR"
NAMED = ("conditioning", "callbacks", "logger", "metric")
"""The groups whose files hold several parts, each under a name: config sections of the same name."""

_TARGET = re.compile(r"^([ \t]*)_target_:\s*(\S+)", re.M)


def package() -> Path:
    """The package's: inside the package if installed from a wheel, next to it in a checkout."""
    inside = Path(__file__).resolve().parent.parent
    for folder in inside / "conf", inside.parent / "conf":
        if (folder / "train.yaml").is_file():
            return folder
    raise UserError(f"no conf folder in {inside} or beside it: install the package again")


def user() -> Path | None:
    """The user's, or None."""
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def use(folder: str | Path | None = None) -> None:
    """Makes `folder` (None: the one in the environment variable) the user's, here and in child processes. Its parent is
    added to Python's path.

    Raises UserError if it is not a folder, or if a file is invalid or has the name of a file of the package, which
    Hydra would use instead.
    """
    if folder is None and (folder := user()) is None:
        return
    path = Path(folder).expanduser().absolute()
    if not str(folder) or not path.is_dir():
        raise UserError(f"--config-dir={folder}: no such folder; expected one with files such as sampler/mine.yaml")
    files = _yamls(path)
    for file in files:
        if (package() / file.relative_to(path)).exists():
            raise UserError(f"{file}: {file.relative_to(path)} is also a file of the package; rename yours")
    yaml_checks.check(path, files, _groups([package()]), NAMED)
    os.environ[VARIABLE] = str(path)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last: a file there must not shadow a module of a library


def copy_user(folder: Path) -> None:
    """Copies the user's yaml files into `folder`. Raises OSError."""
    if (source := user()) is None:
        return
    for file in _yamls(source):
        copy = folder / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def _yamls(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.yaml"), *folder.glob("*/*.yaml")])


def all_() -> list[Path]:
    """The package's, then the user's."""
    return [folder for folder in (package(), user()) if folder is not None]


def choices(group: str) -> dict[str, Path]:
    """Name -> file of every choice of a group, by name."""
    files = {file.stem: file for folder in all_() for file in (folder / group).glob("*.yaml")}
    return dict(sorted(files.items()))


def groups() -> list[str]:
    """The groups, by name."""
    return _groups(all_())


def _groups(parents: list[Path]) -> list[str]:
    return sorted({file.parent.name for folder in parents for file in folder.glob("*/*.yaml")})


@functools.cache
def targets(file: Path) -> list[tuple[int, str]]:
    """The import paths that a file names, each with its indentation: 0 at the root."""
    return [(len(space), path) for space, path in _TARGET.findall(file.read_text(encoding="utf-8"))]


def commands() -> dict[str, str]:
    """Name -> import path of every command: a file at the top of a folder with `_target_` at its root."""
    files = sorted(file for folder in all_() for file in folder.glob("*.yaml"))
    roots = {file.stem: [path for indent, path in targets(file) if indent == 0] for file in files}
    return {name: paths[0] for name, paths in roots.items() if paths}
