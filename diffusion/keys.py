"""What a key of a command's config takes: the annotation of the constructor's argument that the key is.

Around the nodes that name a constructor lie sections of the command itself, which the annotation of its function's
argument describes: `def run(config: Annotated[DictConfig, SampleKeys])`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from diffusion import folders
from diffusion.kinds import Kind, kind_like, one_of
from diffusion.registry import NAMED, TARGET
from diffusion.signatures import REST, Parameter, parameters


def parameters_at(key: str, command: str, groups: Mapping[str, str], config: Mapping[str, Any]) -> list[Parameter]:
    """Of every constructor that a dotted key may be an argument of; empty where none takes it.

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
    return [parameter for parameter in found if parameter.kind is not None]


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
    found = [parameter.kind for parameter in parameters_at(key, command, groups, config)]
    return one_of(found) if found else kind_like(default)
