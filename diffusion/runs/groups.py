"""The config groups of a command: conf/<group>/<choice>.yaml, and the key of the config that each group fills."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from diffusion.config import conf_folders, yaml_checks
from diffusion.config.plain import load, plain
from diffusion.config.registry import TARGET
from diffusion.config.suggestions import items, suggest
from diffusion.ground.errors import UserError

_SECTION = "sampling"  # a file of this folder is part of the config where it is included, not a choice


class Group(NamedTuple):
    """A config group and the key of the config that its choice fills.

    folder: conf/<folder>/<choice>.yaml. of_model: null keeps the part of the trained model, and values without a
    choice change that part.
    """

    key: str
    folder: str
    default: str | None
    choices: list[str]
    of_model: bool = False

    @property
    def hydra_name(self) -> str:
        """sampler, or sampler@metric.sampler where the group fills another key."""
        return self.folder if self.folder == self.key else f"{self.folder}@{self.key}"


def file_of(command: str) -> Path:
    """The file of a command in conf/, or in the user's folder."""
    return next(file for folder in conf_folders.all_() if (file := folder / f"{command}.yaml").exists())


def root_files(command: str) -> list[Path]:
    """The files whose keys are at the root of a command's config: its own, and what it includes `@_here_`."""
    file = file_of(command)
    entries = yaml_checks.defaults(plain(load(file), resolve=False))
    return [file, *(conf_folders.choices(each.group)[str(each.choice)] for each in entries if each.key == "_here_")]


def groups_of(command: str, chosen: Mapping[str, str] | None = None) -> dict[str, Group]:
    """The groups of a command by key, from the defaults lists of its file and of the choices that it includes.

    chosen: choices by key, in place of the defaults.
    """
    found: dict[str, Group] = {}
    _add(found, file_of(command), "", chosen or {})
    return found


def _add(found: dict[str, Group], file: Path, prefix: str, chosen: Mapping[str, str]) -> None:
    of_model = file.parent.name == _SECTION or file.stem == "evaluate"
    tree = load(file)
    for name in _siblings(tree):
        _add(found, conf_folders.choices(file.parent.name)[name], prefix, chosen)
    for entry in yaml_checks.defaults(plain(tree, resolve=False)):
        key = prefix + entry.key if entry.key != "_here_" else prefix.removesuffix(".")
        if entry.override:
            if key in found:  # a group of another file keeps its choices
                found[key] = found[key]._replace(default=entry.choice)
            continue
        files = conf_folders.choices(entry.group)
        if entry.group != _SECTION:
            found[key] = Group(key, entry.group, entry.choice, [*files], of_model and entry.choice is None)
        for choice in several(chosen.get(key) or entry.choice or "null"):
            if choice in files:
                _add(found, files[choice], f"{key}." if key else "", chosen)


def folders_by_key(known: Mapping[str, Group]) -> dict[str, str]:
    """Key -> folder of the group that fills it."""
    return {key: group.folder for key, group in known.items()}


def several(choice: str) -> list[str]:
    """The names in [a,b], or a single name."""
    return items(choice[1:-1]) if choice.startswith("[") else [choice]


def load_choice(group: str, choice: str) -> DictConfig:
    """The file of a choice, merged over the choices of the same group in its defaults list."""
    file = load(conf_folders.choices(group)[choice])
    first = _siblings(file)
    file.pop("defaults", None)
    return _merged(*(load_choice(group, name) for name in first), file)


def _siblings(file: DictConfig) -> list[str]:
    """The choices of the same group in the defaults list of a file, over which it is merged."""
    return [entry for entry in file.get("defaults", []) if isinstance(entry, str) and entry != "_self_"]


def choice(group: str, name: str) -> dict[str, Any]:
    """A choice by itself, without the groups that it overrides, in plain containers. Raises UserError for a name that
    the group does not have."""
    names = [*conf_folders.choices(group)]
    if name not in names:
        raise UserError(f"{name}: no such {group}; choose one of {', '.join(names)}{suggest(name, names)}")
    return plain(load_choice(group, name))


def known_keys(config: Any, known: Mapping[str, Group]) -> dict[str, Any]:
    """Every dotted key that an override may set, with its default; the default of a section is a dict."""
    keys: dict[str, Any] = {}

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        for name, value in node.items():
            if str(name).startswith("_"):  # _target_: set by the choice of a group, not by an override
                continue
            keys[f"{prefix}{name}"] = value
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")

    tree = plain(config, resolve=False)
    tree.pop("given", None)
    for group in known.values():
        if group.of_model:
            _add_keys_of_choices(tree, group)
    walk(tree, "")
    return keys


def _add_keys_of_choices(tree: dict[str, Any], group: Group) -> None:
    """Adds every key of any choice to `tree` where no choice is made."""
    section, name = tree, group.key
    while "." in name and isinstance(section, dict):
        head, _, name = name.partition(".")
        section = section.get(head)
    if isinstance(section, dict) and name in section and TARGET not in (section[name] or {}):
        union = plain(_merged(*(load_choice(group.folder, each) for each in group.choices)), resolve=False)
        section[name] = union | (section[name] or {})


def _merged(*configs: DictConfig) -> DictConfig:
    merged = OmegaConf.merge(*configs)
    assert isinstance(merged, DictConfig)  # as each of them is
    return merged
