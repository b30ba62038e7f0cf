"""The values that a key of a command's config takes: the annotation of the constructor's argument of that name.

The sections around the nodes that name a constructor belong to the command. The annotation of its function's argument
describes them: `def run(config: Annotated[DictConfig, SampleKeys])`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import MISSING

from diffusion.config import conf_folders
from diffusion.config.plain import load
from diffusion.config.registry import NAMED, TARGET
from diffusion.config.signatures import REST, Parameter, parameters
from diffusion.config.value_parsers import Kind, kind_like, one_of
from diffusion.ground.errors import UserError


def parameters_at(key: str, command: str, groups: Mapping[str, str], config: Mapping[str, Any]) -> list[Parameter]:
    """The parameters that a dotted key may set, one for each possible constructor; empty if none takes it. The kind of
    one that takes any name (`**options`) is None.

    groups: key -> folder of the group that fills it. config: the choices made; other groups may have any choice.
    """
    holders = [each.nested for each in parameters(conf_folders.commands()[command]).values() if each.nested]
    here, node, found = "", config, []
    for part in key.split("."):
        here = f"{here}.{part}" if here else part
        node = node.get(part) if isinstance(node, Mapping) else None
        found = [parameter for one in holders if (parameter := one.get(part, one.get(REST))) is not None]
        holders = [parameter.nested for parameter in found if parameter.nested]
        holders += [parameters(target) for target in _targets(here, node, groups)]
    return found


def _targets(key: str, node: Any, groups: Mapping[str, str]) -> Iterable[str]:
    """The import paths that the node at `key` may name."""
    if isinstance(node, Mapping) and TARGET in node:
        return [node[TARGET]]
    section, _, name = key.rpartition(".")
    if section in NAMED:
        return dict.fromkeys(_named(section, name))
    return dict.fromkeys(_chosen(groups[key])) if key in groups else ()


def _chosen(group: str) -> Iterator[str]:
    """The import paths at the roots of a group's choices."""
    for file in conf_folders.choices(group).values():
        yield from (path for indent, path in conf_folders.targets(file) if not indent)


def _named(group: str, name: str) -> Iterator[str]:
    """The import paths under `name` in a group's choices."""
    for file in conf_folders.choices(group).values():
        node = load(file).get(name)
        if isinstance(node, Mapping) and TARGET in node:
            yield node[TARGET]


def kind_at(key: str, command: str, groups: Mapping[str, str], config: Mapping[str, Any], default: Any = None) -> Kind:
    """The kind of a dotted key. default: its value, which determines the kind of a key without an annotation."""
    return _kind(parameters_at(key, command, groups, config), default)


def _kind(found: Iterable[Parameter], default: Any) -> Kind:
    kinds = [each.kind for each in found if each.kind is not None]
    return one_of(kinds) if kinds else kind_like(default)


def check_nodes(config: Mapping[str, Any], command: str, groups: Mapping[str, str]) -> None:
    """Raises UserError if a node of a resolved config names a missing constructor, has a key that the constructor does
    not take, or has a value of the wrong kind."""
    for section, node in _nodes(config):
        names = [name for name in parameters(node[TARGET]) if name != REST]
        for name, value in node.items():
            key = f"{section}.{name}"
            if name == TARGET or value == MISSING or key in groups or isinstance(value, Mapping):
                continue
            if not (found := parameters_at(key, command, groups, config)):
                raise UserError(f"{key}: {node[TARGET]} takes no {name}; it takes {', '.join(names) or 'nothing'}")
            kind = _kind(found, value)
            try:
                kind.read(value)
            except ValueError:
                raise UserError(f"{key}={value}: expected {kind.description}") from None


def _nodes(tree: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The nodes that name a constructor, each with its key."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            here = f"{key}.{name}" if key else name
            if TARGET in value:
                yield here, value
            yield from _nodes(value, here)
