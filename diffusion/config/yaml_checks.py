"""The yaml files of config groups: their defaults lists, and the checks of those in a user's folder.

Hydra and OmegaConf would report most of these mistakes with a traceback.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion.config.suggestions import suggest
from diffusion.ground.errors import UserError

_NAME = re.compile(r"[A-Za-z_][\w .-]*", re.ASCII)
_RESERVED = ("null", "true", "false")


class Default(NamedTuple):
    """An entry `group@key: choice` of a defaults list. override: it changes the choice of another file's entry."""

    group: str
    key: str
    choice: str | None
    override: bool


def defaults(tree: Mapping[str, Any]) -> Iterator[Default]:
    """The entries of a file's defaults list that choose in a group, without `_self_` and names of the same group."""
    for entry in tree.get("defaults", []):
        if isinstance(entry, str):
            continue
        [(text, choice)] = entry.items()
        group, _, key = text.removeprefix("override ").removeprefix("/").partition("@")
        choice = f"[{','.join(choice)}]" if isinstance(choice, list) else choice
        yield Default(group, key or group, choice, text.startswith("override "))


def check(folder: Path, files: list[Path], groups: list[str], named: tuple[str, ...]) -> None:
    """groups: those of the package; named: those whose files hold parts by name.

    Raises UserError for the first invalid file, and if there is no file.
    """
    if not files:
        inside = f"; did you mean {folder / 'conf'}?" if (folder / "conf").is_dir() else ""
        raise UserError(f"--config-dir={folder}: no yaml files there, such as sampler/mine.yaml{inside}")
    if folder.name in groups:
        raise UserError(f"--config-dir={folder} is the folder of a group: name the one above it, {folder.parent}")
    contents = {file: _read(file) for file in files}
    for file, tree in contents.items():
        _check_defaults(file, tree)
    known = {*groups, *(entry.group for tree in contents.values() for entry in defaults(tree))}
    for file, tree in contents.items():
        group = None if file.parent == folder else file.parent.name
        if group is not None and group not in known:
            raise UserError(f"{file}: there is no group {group}{suggest(group, known)}")
        if not _NAME.fullmatch(file.stem) or file.stem in _RESERVED:
            raise UserError(f"{file}: a choice is named by letters, digits, - and _, a letter first")
        if group in named:
            _check_named(file, tree)


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())[:200] if not isinstance(error, RecursionError) else "it contains itself"
        raise UserError(f"{file}: cannot be read as YAML ({reason})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{file}: expected lines of `key: value`, not {'a list' if isinstance(tree, list) else tree}")
    if not tree and not file.read_text(encoding="utf-8").strip().endswith("{}"):
        raise UserError(f"{file} is empty; a choice without anything is written {{}}")
    for key, value in _items(tree):
        if not isinstance(key, str):
            raise UserError(f"{file}: the key {key!r} is not a text: put it in quotes")
        if key == "_target_" and not (isinstance(value, str) and "." in value):
            raise UserError(f"{file}: _target_={value}: expected MODULE.NAME")
    return {str(key): value for key, value in tree.items()}


def _items(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Keys and values at any depth."""
    if isinstance(tree, list):
        for value in tree:
            yield from _items(value)
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield key, value
            yield from _items(value)


def _check_defaults(file: Path, tree: Mapping[str, Any]) -> None:
    defaults = tree.get("defaults", [])
    if not isinstance(defaults, list) or not all(_is_default(entry) for entry in defaults):
        raise UserError(f"{file}: defaults: expected a list of names and of `group: choice`")
    if file.stem in defaults:
        raise UserError(f"{file}: its defaults name the file itself")


def _is_default(entry: Any) -> bool:
    return isinstance(entry, str) or (isinstance(entry, dict) and len(entry) == 1)


def _check_named(file: Path, tree: Mapping[str, Any]) -> None:
    for name, node in tree.items():
        if name != "defaults" and node is not None and not isinstance(node, dict):
            raise UserError(f"{file}: expected a name for each part, and its _target_ and keys below it")
