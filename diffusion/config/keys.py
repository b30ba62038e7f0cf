"""What a key of a command's config takes: the annotation of the constructor's argument that the key is.

Around the nodes that name a constructor lie sections of the command itself, which the annotation of its function's
argument describes: `def run(config: Annotated[DictConfig, SampleKeys])`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import MISSING, OmegaConf

from diffusion.config import folders
from diffusion.config.kinds import Kind, kind_like, one_of
from diffusion.config.registry import NAMED, TARGET
from diffusion.config.signatures import REST, Parameter, parameters
from diffusion.ground.errors import UserError


def parameters_at(key: str, command: str, groups: Mapping[str, str], config: Mapping[str, Any]) -> list[Parameter]:
    """Of every constructor that a dotted key may be an argument of; empty where none takes it. One that takes any name
    (`**options`) says nothing of it: its kind is None.

    groups: key -> folder of the choices that fill it. config: where a choice has been made; where not, any may be.
    """
    holders = [each.nested for each in parameters(folders.commands()[command]).values() if each.nested]
    here, node, found = "", config, []
    for part in key.split("."):
        here = f"{here}.{part}" if here else part
        node = node.get(part) if isinstance(node, Mapping) else None
        found = [parameter for one in holders if (parameter := one.get(part, one.get(REST))) is not None]
        holders = [parameter.nested for parameter in found if parameter.nested]
        holders += [parameters(target) for target in _targets(here, node, groups)]
    return found


def _targets(key: str, node: Any, groups: Mapping[str, str]) -> Iterable[str]:
    """What the node at `key` may be built by."""
    if isinstance(node, Mapping) and TARGET in node:
        return [node[TARGET]]
    section, _, name = key.rpartition(".")
    if section in NAMED:
        return dict.fromkeys(_named(NAMED[section], name))
    return dict.fromkeys(_chosen(groups[key])) if key in groups else ()


def _chosen(group: str) -> Iterator[str]:
    """What the choices of a group name at their roots."""
    for file in folders.choices(group).values():
        yield from (path for indent, path in folders.targets(file) if not indent)


def _named(group: str, name: str) -> Iterator[str]:
    """What the choices of a group name under `name`."""
    for file in folders.choices(group).values():
        node = OmegaConf.load(file).get(name)
        if OmegaConf.is_dict(node) and TARGET in node:
            yield node[TARGET]


def kind_at(key: str, command: str, groups: Mapping[str, str], config: Mapping[str, Any], default: Any = None) -> Kind:
    """What a dotted key takes. default: its value, by which a key is judged that no annotation describes."""
    found = [each.kind for each in parameters_at(key, command, groups, config) if each.kind is not None]
    return one_of(found) if found else kind_like(default)


def check_nodes(config: Mapping[str, Any], command: str, groups: Mapping[str, str]) -> None:
    """Raises UserError where a node of a resolved config names what is not there, has a key that its constructor does
    not take, or a value of another kind."""
    for section, node in _nodes(config):
        names = [name for name in parameters(node[TARGET]) if name != REST]
        for name, value in node.items():
            key = f"{section}.{name}"
            if name == TARGET or value == MISSING or key in groups or isinstance(value, Mapping):
                continue
            if not parameters_at(key, command, groups, config):
                raise UserError(f"{key}: {node[TARGET]} takes no {name}; it takes {', '.join(names) or 'nothing'}")
            kind = kind_at(key, command, groups, config, value)
            try:
                kind.read(value)
            except ValueError:
                raise UserError(f"{key}={value}: expected {kind.words}") from None


def _nodes(tree: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The nodes that name a constructor, each with its key."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            here = f"{key}.{name}" if key else name
            if TARGET in value:
                yield here, value
            yield from _nodes(value, here)
