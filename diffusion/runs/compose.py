"""Words of the command line -> the composed config. Hydra composes the groups; every word is checked first.

Hydra alone lets through a text where a section belongs, a number that is none and (with `+`) keys that nobody reads,
and its parser stumbles over paths that hold `=` or a comma. Here each mistake is one line with the way out.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from diffusion.config import folders
from diffusion.config.keys import check_nodes, kind_at, parameters_at
from diffusion.config.kinds import LITERAL, RAW, TEXT, Kind
from diffusion.config.registry import NAMED, TARGET, registered
from diffusion.config.signatures import REST, parameters
from diffusion.config.typed import items, suggest
from diffusion.ground.errors import Notice, UserError
from diffusion.runs import manifest

# What a key was called before -> what it is called now; of a section all its keys.
RENAMED = {
    "trainer.val_every_n_epochs": "validate.every_n_epochs",
    "conditioning.drop": "conditioning.label.drop",
    "preview.": "callbacks.preview.",
    **{f"logger.{key}": f"logger.wandb.{key}" for key in ("project", "entity", "mode")},
    "strategy.strategy": "strategy",
}

# Hydra's own keys -> what to write instead.
_OF_HYDRA = {
    "hydra.run.dir": "say run.dir= for the folder of a run, or run.root= for that of all runs",
    "hydra.sweep.dir": "each run of -m has a folder of its own in run.root=",
    "hydra.searchpath": "--config-dir adds a folder of your own",
    "hydra/launcher": "the runs of -m follow one another here",
    "hydra/sweeper": "-m takes every combination of the values here",
}

_SECTION = "sampling"  # a file of this folder is part of the config where it is included, not a choice

# What the command line fills, and nobody types.
_FILLED = {"given", TARGET}


class Group(NamedTuple):
    """A group of choices, conf/<folder>/<choice>.yaml, and the key of the config that the choice fills."""

    key: str
    folder: str
    default: str | None
    choices: list[str]
    of_model: bool = False  # null is as in the model's training, and values without a choice change what that had

    @property
    def word(self) -> str:
        """What Hydra calls the group: sampler, or sampler@metric.sampler where it fills another key."""
        return self.folder if self.folder == self.key else f"{self.folder}@{self.key}"


def file_of(command: str) -> Path:
    """The file of a command in conf/, or in the user's folder."""
    return next(file for folder in folders.all_() if (file := folder / f"{command}.yaml").exists())


def groups(command: str, chosen: Mapping[str, str] | None = None) -> dict[str, Group]:
    """The groups of a command by key, as the defaults lists of its file, and of the choices that it includes, have
    them. chosen: by key, instead of the defaults."""
    found: dict[str, Group] = {}
    _add_groups(found, file_of(command), "", chosen or {})
    return found


def _add_groups(found: dict[str, Group], file: Path, prefix: str, chosen: Mapping[str, str]) -> None:
    of_model = file.parent.name == _SECTION
    for name, key, default in _defaults(file):
        key = prefix + key if key != "_here_" else prefix.removesuffix(".")
        if name.startswith("override "):
            if key in found:  # another file's group stays that file's
                found[key] = found[key]._replace(default=default)
            continue
        if name != _SECTION:
            found[key] = Group(key, name, default, [*folders.choices(name)], of_model and default is None)
        files = folders.choices(name)
        for choice in several(chosen.get(key) or default or "null"):
            if choice in files:
                _add_groups(found, files[choice], f"{key}." if key else "", chosen)


def _defaults(file: Path) -> list[tuple[str, str, str | None]]:
    """The groups of the defaults list of a file: group, the key that it fills, and choice."""
    found = []
    for entry in OmegaConf.to_container(OmegaConf.load(file)).get("defaults", []):
        if isinstance(entry, str):  # _self_, or another choice of the same group
            continue
        [(name, default)] = entry.items()
        name, _, key = name.removeprefix("/").partition("@")  # sampler@metric.sampler: conf/sampler in another place
        default = f"[{','.join(default)}]" if isinstance(default, list) else default
        found.append((name, key or name.removeprefix("override ").removeprefix("/"), default))
    return found


def several(choice: str) -> list[str]:
    """The names in [a,b], or in a single one."""
    return items(choice[1:-1]) if choice.startswith("[") else [choice]


def root_files(command: str) -> list[Path]:
    """The files whose keys are at the root of a command's config: its own, and what it includes `@_here_`."""
    file = file_of(command)
    included = [folders.choices(name)[choice] for name, key, choice in _defaults(file) if key == "_here_"]
    return [file, *included]


def compose(command: str, words: Sequence[str] = ()) -> DictConfig:
    """The config of `command` with `words` ("key=value") applied.

    Mandatory values may still be missing, see `check_complete`. In sampling, `sampler.steps=50` without a choice of
    `sampler` makes a node without `_target_`: it changes the sampler that the checkpoint brings.

    Raises: UserError for a word that cannot be read, an unknown key or choice, or a value of the wrong kind.
    """
    pairs, chosen, values = [*map(split, words)], {}, {}
    known = groups(command, dict(pairs))
    for key, text in pairs:
        if key in chosen or key in values:
            raise UserError(f"{key} is given twice: say it once")
        if key in known:
            chosen[key] = _choice(known[key], text)
        else:
            values[key] = text
    try:
        config = _compose(command, chosen, known)
        if values.get("rerun", "null") != "null":
            _repeat(config, _path("rerun", values["rerun"], kind("rerun", command, known)), chosen)
        for key, text in values.items():
            _put(config, key, text, command, known)
        if "given" in config:
            config.given = [*chosen, *values]
        _remove_null(config)
        OmegaConf.to_container(config, resolve=True)  # an interpolation that leads nowhere
        if folders.own() is not None:  # whose yaml files nobody has checked yet
            tree = OmegaConf.to_container(config, resolve=True)
            registered()  # two classes of one name
            check_nodes(tree, command, {name: group.folder for name, group in known.items()})
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"the config cannot be composed: {' '.join(str(error).split())}") from error
    return config


def _remove_null(config: DictConfig) -> None:
    """callbacks.preview=null: the section is without it."""
    for key in NAMED:
        section = config.get(key) or {}
        for name in [name for name in section if section[name] is None]:
            with open_dict(config):
                del section[name]


def check_complete(config: DictConfig) -> None:
    """Raises UserError where a mandatory value is missing."""
    for key in sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{key} is missing: say {key}=...")


def split(word: str) -> tuple[str, str]:
    """key=value -> key, value. The value of a path may hold anything; others are read by `parse`."""
    key, equals, text = word.partition("=")
    bare = key.lstrip("+~")
    if key != bare:
        left_out = key.startswith("~") and bare.rpartition(".")[0] in NAMED
        instead = f"{bare or 'key'}={'null' if left_out else text or 'value'}"
        raise UserError(f"{word}: keys are neither added nor deleted (+, ++, ~); say {instead}")
    if not equals or not key:
        raise UserError(f"{word}: expected key=value, without spaces around '='")
    if "@" in key:  # Hydra's own sampler@metric.sampler=ddim is our metric.sampler=ddim
        key = key.rpartition("@")[2]
    return key, text


def choice(group: str, name: str) -> dict[str, Any]:
    """A choice by itself, without the groups that it overrides, in plain containers. Raises UserError where there is
    none."""
    names = [*folders.choices(group)]
    if name not in names:
        raise UserError(f"{name}: no such {group}; choose among {', '.join(names)}{suggest(name, names)}")
    return OmegaConf.to_container(_load(group, name), resolve=True)


def parse(key: str, text: str) -> Override:
    """Hydra's reading of a value; it may be a sweep, such as 1,2,3."""
    try:
        return OverridesParser.create().parse_override(f"{key}={text}")
    except HydraException as error:
        raise UserError(
            f"{key}={text}: cannot be read; put a value with special characters in quotes twice, \"{key}='...'\""
        ) from error


def known_keys(config: DictConfig, known: dict[str, Group]) -> dict[str, Any]:
    """Every dotted key that a word may set, with its default (a dict for a section)."""
    keys: dict[str, Any] = {}

    def walk(node: dict, prefix: str) -> None:
        for name, value in node.items():
            if str(name).startswith("_"):  # _target_: chosen by a group, not by a word
                continue
            keys[prefix + name] = value
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")

    tree = OmegaConf.to_container(config, resolve=False)
    tree.pop("given", None)
    for group in known.values():
        if group.of_model:
            _offer(tree, group)
    walk(tree, "")
    return keys


def _offer(tree: dict[str, Any], group: Group) -> None:
    """Puts any key that one of the choices has where none is chosen."""
    section, name = tree, group.key
    while "." in name and isinstance(section, dict):
        head, _, name = name.partition(".")
        section = section.get(head)
    if isinstance(section, dict) and name in section and TARGET not in (section[name] or {}):
        section[name] = _union(group) | (section[name] or {})


def _choice(group: Group, text: str) -> str:
    if text == "null" and (group.default is None or group.of_model):
        return text
    if text in group.choices:
        return text
    if group.folder in NAMED and text.startswith("[") and text.endswith("]"):  # several of them at once
        names = [_choice(group, name) for name in items(text[1:-1])]
        if not names or len({*names}) < len(names):
            raise UserError(f"{group.key}={text}: expected at least one of {', '.join(group.choices)}, each once")
        return f"[{','.join(names)}]"
    _refuse_sweep(parse(group.key, text), group.key, text)
    if text in folders.commands():
        raise UserError(f"{group.key}={text}: {text} is a command: python {text}.py")
    choices = f"choose one of {', '.join(group.choices)}" if group.choices else f"conf/{group.folder} has none"
    raise UserError(f"{group.key}={text}: no such {group.folder}; {choices}{suggest(text, group.choices)}")


def _repeat(config: DictConfig, run: str, chosen: Mapping[str, str]) -> None:
    """Puts what a run was trained with into `config`, but for its folder and what has been `chosen` anew."""
    for key in "experiment", "debug":
        if key in chosen:
            raise UserError(f"{key}={chosen[key]}: rerun repeats a run as it was; change single values instead")
    anew = {key: OmegaConf.select(config, key) for key in chosen}
    for key, value in manifest.read(run)["config"].items():
        if key not in manifest.OF_THE_SESSION:
            config[key] = over(OmegaConf.to_container(config).get(key), value)
    for key, value in anew.items():
        OmegaConf.update(config, key, value, merge=False)


def over(default: Any, saved: Any) -> Any:
    """`saved`, with the keys of `default` that it does not have; an object (`_target_`) is as it was saved."""
    if not isinstance(saved, dict) or not isinstance(default, dict) or "_target_" in saved:
        return saved
    return default | {key: over(default.get(key), value) for key, value in saved.items()}


def chosen(command: str, words: Sequence[str]) -> dict[str, str | None]:
    """The choice of each group, by key, where `words` are typed: recipes choose too."""
    pairs = [*map(split, words)]
    known = groups(command, dict(pairs))
    typed = {key: _choice(known[key], text) for key, text in pairs if key in known}
    found = _composed(command, typed, known, return_hydra_config=True).hydra.runtime.choices
    return {key: found.get(group.word) for key, group in known.items()}


def _compose(command: str, chosen: dict[str, str], known: dict[str, Group]) -> DictConfig:
    """Hydra's composition. A recipe's ema.decay=0.998 means nothing to the ema=power of the command line: a Notice
    says that it is left out."""
    config = _composed(command, chosen, known)
    with open_dict(config):
        config.pop(TARGET, None)
    for key, choice in chosen.items():
        section = OmegaConf.select(config, key)
        if choice == "null" and section is not None:  # a recipe's
            OmegaConf.update(config, key, None, merge=False)
        elif OmegaConf.is_dict(section):
            own = {name for one in several(choice) for name in _load(known[key].folder, one)}
            _leave_out(section, own, f"{key}={choice}", key, chosen)
    return config


def _composed(command: str, chosen: dict[str, str], known: dict[str, Group], **options: Any) -> DictConfig:
    words = [f"{known[key].word}={choice}" for key, choice in chosen.items() if choice != "null"]
    first = file_of(command).parent  # of a command of the user's own it is the other folder
    for folder in folders.all_():
        if folder != first:
            path = str(folder).replace("\\", r"\\").replace("'", r"\'")
            words.append(f"hydra.searchpath=['file://{path}']")
    with initialize_config_dir(str(first), version_base="1.3"):
        return hydra_compose(command, words, **options)


def _leave_out(section: DictConfig, own: set[str], choice: str, key: str, chosen: Mapping[str, str]) -> None:
    """Removes what other files have set in the section of a choice that does not have it. Raises UserError for what was
    typed."""
    for name in set(section) - own:
        if f"{key}.{name}" in chosen:
            raise UserError(f"{key}.{name}={chosen[f'{key}.{name}']} has no effect: {choice} has no such key")
        with open_dict(section):
            value = section.pop(name)
        warnings.warn(f"{key}.{name}={value} of a recipe is left out: {choice} has no such key", Notice, stacklevel=2)


def kind(
    key: str,
    command: str,
    known: Mapping[str, Group],
    config: Mapping[str, Any] | None = None,
    default: Any = None,
) -> Kind:
    """What a key takes; without a `config`, where any choice may be made."""
    return kind_at(key, command, {name: group.folder for name, group in known.items()}, config or {}, default)


def _put(config: DictConfig, key: str, text: str, command: str, known: dict[str, Group]) -> None:
    keys, tree = known_keys(config, known), OmegaConf.to_container(config, resolve=False)
    if key not in keys and not _is_open(key, command, keys, tree):
        raise UserError(_unknown(key, text, command, [*keys, *known], known))
    value = _value(key, text, keys.get(key), kind(key, command, known, tree, keys.get(key)))
    OmegaConf.update(config, key, value, force_add=True)


def _is_open(key: str, command: str, keys: Mapping[str, Any], tree: Mapping[str, Any]) -> bool:
    """Whether a key that no yaml has is taken all the same: in a section of any names, such as `condition`; and an
    argument of a strategy, of which Lightning's have many."""
    section, _, name = key.rpartition(".")
    if not name or not isinstance(keys.get(section), dict):
        return False
    if section == "strategy":
        return TARGET in tree[section] and name in parameters(tree[section][TARGET])
    return any(parameter.kind is not None for parameter in parameters_at(f"{section}.{REST}", command, {}, {}))


def _value(key: str, text: str, default: Any, kind: Kind) -> Any:
    if isinstance(default, dict):
        if text == "null" and key.rpartition(".")[0] in NAMED:
            return None
        inside = ", ".join(f"{key}.{name}" for name in default if not name.startswith("_"))
        raise UserError(f"{key}={text}: {key} is a section; set one of its keys ({inside})")
    if kind.taken == LITERAL:
        return _path(key, text, kind)
    if kind.taken == RAW:
        return _escaped(text)
    override = parse(key, text)
    _refuse_sweep(override, key, text)
    value = override.value()
    if value is None and default is None:
        return None
    try:
        # A number typed where a text belongs is that text: 007 stays 007.
        return kind.read(text if kind.taken == TEXT and isinstance(value, int | float) else value)
    except ValueError:
        raise UserError(f"{key}={text}: expected {kind.words}") from None


def _path(key: str, text: str, kind: Kind) -> str | None:
    if text == "null" and kind.null:
        return None
    if text in ("", "null", "???"):
        raise UserError(f"{key}={text}: expected {kind.words}")
    return _escaped(os.path.expanduser(text))  # the shell leaves ~ alone after `key.key=`


def _escaped(text: str) -> str:
    """OmegaConf would take ${ for a reference."""
    return text.replace("${", r"\${")


def _refuse_sweep(override: Override, key: str, text: str) -> None:
    if override.is_sweep_override():
        raise UserError(f"{key}={text}: several values need --multirun; a list is written [a,b]")


def _unknown(key: str, text: str, command: str, names: list[str], known: dict[str, Group]) -> str:
    if (now := _renamed(key)) is not None:
        return f"{key}={text}: the key is called {now} now; say {now}={text}"
    if key.startswith("hydra"):
        return f"{key}={text}: Hydra only composes the config here; {_OF_HYDRA.get(key, '--print shows it')}"
    head = key.partition(".")[0]
    if head not in names and (where := _elsewhere(head, command)):
        return f"{key}={text}: belongs to {where}{suggest(key, names)}"
    for group in known.values():
        if not key.startswith(f"{group.key}."):
            continue
        rest = key.removeprefix(f"{group.key}.")
        having = [
            f"{group.key}={choice}"
            for choice in group.choices
            if rest in known_keys(_load(group.folder, choice), known)
        ]
        if having:
            return f"{key}: no such key in this choice of {group.key}; {' or '.join(having)} has it"
    return f"{key}: no such key{suggest(key, names) or '; --help lists them'}"


def _renamed(key: str) -> str | None:
    section, dot, name = key.partition(".")
    return RENAMED.get(key) or (f"{RENAMED[section + dot]}{name}" if section + dot in RENAMED else None)


def _elsewhere(name: str, command: str) -> str:
    """The other commands that have a key or group of this name."""
    having = [
        other
        for other in folders.commands()
        if other != command and name in {*groups(other), *chain(*map(OmegaConf.load, root_files(other)))} - _FILLED
    ]
    return "training: the checkpoint fixes it" if "train" in having else ", ".join(f"{other}.py" for other in having)


def _union(group: Group) -> dict:
    return OmegaConf.to_container(
        OmegaConf.merge(*[_load(group.folder, choice) for choice in group.choices]), resolve=False
    )


def _load(group: str, choice: str) -> DictConfig:
    """A choice's file, on top of the choices of its own group that it begins with."""
    file = OmegaConf.load(folders.choices(group)[choice])
    first = [entry for entry in file.pop("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    return OmegaConf.merge(*[_load(group, name) for name in first], file)
