"""The overrides of the command line -> the composed config. Hydra composes the groups; every override is checked first.

Hydra alone accepts a text in place of a section, values of the wrong kind and (with `+`) unused keys, and its parser
fails on paths that contain `=` or a comma. Here each mistake gives a one-line message with a fix.
"""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from diffusion.config import conf_folders
from diffusion.config.keys import check_nodes, kind_at, parameters_at
from diffusion.config.plain import plain
from diffusion.config.registry import NAMED, TARGET, registered
from diffusion.config.signatures import REST, parameters
from diffusion.config.suggestions import items, suggest
from diffusion.config.value_parsers import LITERALS, RAW, TEXT, Kind
from diffusion.ground.errors import Notice, UserError
from diffusion.runs import manifest, unknown_keys
from diffusion.runs.groups import Group, file_of, folders_by_key, groups_of, known_keys, load_choice, several


def compose(command: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config of `command` with `overrides` ("key=value") applied.

    Mandatory values may still be missing, see `check_complete`. In sampling, `sampler.steps=50` without a choice of
    `sampler` makes a node without `_target_`: it changes the sampler of the checkpoint.

    Raises: UserError for an override that cannot be read, an unknown key or choice, or a value of the wrong kind.
    """
    pairs, chosen, values = [*map(split, overrides)], {}, {}
    known = groups_of(command, dict(pairs))
    for key, text in pairs:
        if key in chosen or key in values:
            raise UserError(f"{key} is given twice: give it once")
        if key in known:
            chosen[key] = _choice(known[key], text)
        else:
            values[key] = text
    try:
        config = _compose(command, chosen, known)
        if (run := values.get("rerun", "null")) != "null":
            _repeat(config, _path("rerun", run, kind("rerun", command, known)) or "", chosen)
        for key, text in values.items():
            _put(config, key, text, command, known)
        if "given" in config:
            config.given = [*chosen, *values]
        _remove_null(config)
        tree = plain(config)  # raises for an interpolation that leads nowhere
        if conf_folders.user() is not None:  # its yaml files are checked here for the first time
            registered()  # raises for two classes of one name
            check_nodes(tree, command, folders_by_key(known))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"the config cannot be composed: {' '.join(str(error).split())}") from error
    return config


def _remove_null(config: DictConfig) -> None:
    """callbacks.preview=null removes the callback from its section."""
    for key in NAMED:
        section = config.get(key) or {}
        for name in [name for name in section if section[name] is None]:
            with open_dict(config):
                del section[name]


def check_complete(config: DictConfig) -> None:
    """Raises UserError if a mandatory value is missing."""
    for key in sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{key} is missing: set {key}=...")


def keyed(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line as overrides: those without a key are items of the command's `Bare` key, if it
    has one."""
    if (key := bare_key(command)) is None:
        return [*arguments]
    bare = [argument for argument in arguments if is_bare(argument)]
    rest = [argument for argument in arguments if not is_bare(argument)]
    return [*rest, f"{key}={json.dumps(bare)}"] if bare else rest


def bare_key(command: str) -> str | None:
    """The key that may be omitted before its items on the command line, or None."""
    sections = [each.nested for each in parameters(conf_folders.commands()[command]).values() if each.nested]
    keys = (key for section in sections for key, each in section.items() if each.kind and each.kind.bare)
    return next(keys, None)


def is_bare(argument: str) -> bool:
    """Whether an argument has no key. A `=` in the folders of a path does not count."""
    key, equals, _ = argument.partition("=")
    return not equals or "/" in key or os.sep in key


def split(override: str) -> tuple[str, str]:
    """key=value -> key, value. The value of a path may hold anything; others are read by `parse`."""
    key, equals, text = override.partition("=")
    bare = key.lstrip("+~")
    if key != bare:
        left_out = key.startswith("~") and bare.rpartition(".")[0] in NAMED
        instead = f"{bare or 'key'}={'null' if left_out else text or 'value'}"
        raise UserError(f"{override}: keys are neither added nor deleted (+, ++, ~); use {instead}")
    if not equals or not key:
        raise UserError(f"{override}: expected key=value, without spaces around '='")
    if "@" in key:  # Hydra's sampler@metric.sampler=ddim is our metric.sampler=ddim
        key = key.rpartition("@")[2]
    return key, text


def parse(key: str, text: str) -> Override:
    """Hydra's reading of a value; it may be a sweep, such as 1,2,3."""
    try:
        return OverridesParser.create().parse_override(f"{key}={text}")
    except HydraException as error:
        raise UserError(
            f"{key}={text}: cannot be read; put a value with special characters in quotes twice, \"{key}='...'\""
        ) from error


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
    if text in conf_folders.commands():
        raise UserError(f"{group.key}={text}: {text} is a command: python {text}.py")
    choices = f"choose one of {', '.join(group.choices)}" if group.choices else f"conf/{group.folder} has none"
    raise UserError(f"{group.key}={text}: no such {group.folder}; {choices}{suggest(text, group.choices)}")


def _repeat(config: DictConfig, run: str, chosen: Mapping[str, str]) -> None:
    """Fills `config` with the config of a run, except its folder and the groups in `chosen`."""
    for key in "experiment", "debug":
        if key in chosen:
            raise UserError(f"{key}={chosen[key]}: rerun repeats a run as it was; change single values instead")
    new = {key: OmegaConf.select(config, key) for key in chosen}
    for key, value in manifest.read(run)["config"].items():
        if key not in manifest.OF_THE_SESSION:
            config[key] = over(plain(config, resolve=False).get(key), value)
    for key, value in new.items():
        OmegaConf.update(config, key, value, merge=False)


def over(default: Any, saved: Any) -> Any:
    """`saved`, with the keys of `default` that it lacks; a node with a `_target_` stays as it was saved."""
    if not isinstance(saved, dict) or not isinstance(default, dict) or "_target_" in saved:
        return saved
    return default | {key: over(default.get(key), value) for key, value in saved.items()}


def chosen(command: str, overrides: Sequence[str]) -> dict[str, str | None]:
    """The choice of each group, by key, with `overrides`: recipes choose too."""
    pairs = [*map(split, overrides)]
    known = groups_of(command, dict(pairs))
    typed = {key: _choice(known[key], text) for key, text in pairs if key in known}
    found = _composed(command, typed, known, return_hydra_config=True).hydra.runtime.choices
    return {key: found.get(group.hydra_name) for key, group in known.items()}


def _compose(command: str, chosen: dict[str, str], known: dict[str, Group]) -> DictConfig:
    """Hydra's composition. A recipe's ema.decay=0.998 does not apply to ema=power on the command line: it is left out,
    with a Notice."""
    config = _composed(command, chosen, known)
    with open_dict(config):
        config.pop(TARGET, None)
    for key, choice in chosen.items():
        section = OmegaConf.select(config, key)
        if choice == "null" and section is not None:  # a recipe's
            OmegaConf.update(config, key, None, merge=False)
        elif isinstance(section, DictConfig):
            own = {str(name) for one in several(choice) for name in load_choice(known[key].folder, one)}
            _leave_out(section, own, f"{key}={choice}", key, chosen)
    return config


def _composed(command: str, chosen: Mapping[str, str], known: Mapping[str, Group], **options: Any) -> DictConfig:
    overrides = [f"{known[key].hydra_name}={choice}" for key, choice in chosen.items() if choice != "null"]
    first = file_of(command).parent  # of a user's command it is the user's folder
    for folder in conf_folders.all_():
        if folder != first:
            path = str(folder).replace("\\", r"\\").replace("'", r"\'")
            overrides.append(f"hydra.searchpath=['file://{path}']")
    with initialize_config_dir(str(first), version_base="1.3"):
        return hydra_compose(command, overrides, **options)


def _leave_out(section: DictConfig, own: set[str], choice: str, key: str, chosen: Mapping[str, str]) -> None:
    """Removes keys that other files set in the section of a choice that does not have them. Raises UserError for a key
    that was typed."""
    for name in {*map(str, section)} - own:
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
    """What a key takes. config: the choices that are made; without it, any choice may be."""
    return kind_at(key, command, folders_by_key(known), config or {}, default)


def _put(config: DictConfig, key: str, text: str, command: str, known: dict[str, Group]) -> None:
    keys, tree = known_keys(config, known), plain(config, resolve=False)
    if key not in keys and not _is_open(key, command, keys, tree):
        raise UserError(unknown_keys.explain(key, text, command, [*keys, *known], known))
    value = _value(key, text, keys.get(key), kind(key, command, known, tree, keys.get(key)))
    OmegaConf.update(config, key, value, force_add=True)


def _is_open(key: str, command: str, keys: Mapping[str, Any], tree: Mapping[str, Any]) -> bool:
    """Whether a key that no yaml has is accepted: any name in a section such as `condition`, and any argument of a
    strategy, since Lightning's strategies have many."""
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
    if kind.literal:
        return _path(key, text, kind)
    if kind.taken == LITERALS:
        return _paths(key, text, kind)
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
        raise UserError(f"{key}={text}: expected {kind.description}") from None


def _path(key: str, text: str, kind: Kind) -> str | None:
    if text == "null" and kind.null:
        return None
    if text in ("", "null", "???"):
        raise UserError(f"{key}={text}: expected {kind.description}")
    return _escaped(os.path.expanduser(text))  # the shell leaves ~ alone after `key.key=`


def _paths(key: str, text: str, kind: Kind) -> list[str]:
    """Those of [a,b], each as the shell hands it over: in quotes where it holds a comma, or a list of JSON's."""
    try:
        if not (text.startswith("[") and text.endswith("]")):
            raise ValueError
        return [_escaped(os.path.expanduser(path)) for path in kind.read(_listed(text))]
    except ValueError:
        raise UserError(f"{key}={text}: expected {kind.description}") from None


def _listed(text: str) -> list[str]:
    with suppress(ValueError, RecursionError):
        found = json.loads(text)  # as `keyed` has written it
        if all(isinstance(each, str) for each in found):
            return found
    return [_unquoted(each) for each in items(text[1:-1])]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _escaped(text: str) -> str:
    """OmegaConf would read ${ as an interpolation."""
    return text.replace("${", r"\${")


def _refuse_sweep(override: Override, key: str, text: str) -> None:
    if override.is_sweep_override():
        raise UserError(f"{key}={text}: several values need --multirun; a list is written [a,b]")
