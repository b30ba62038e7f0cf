"""The parts that a config can name: every `_target_` in a file of conf/, only in its group.

In memory a node names its class by the import path that Hydra knows, `_target_: diffusion.samplers.ddim.DDIM`. A file
names it by the class alone, `class: DDIM`, so that the class may move; the name in an untrusted file is looked up in
the table of its group and never imported.
"""

import copy
import functools
import importlib
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from diffusion.config import conf_folders
from diffusion.config.conf_folders import NAMED
from diffusion.ground.errors import UserError

CLASS, TARGET = "class", "_target_"

# The nodes of a training's config that name a class: key -> group, conf/<group>/.
NODES = {
    **{
        group: group
        for group in (
            *("dataset", "network", "schedule", "prediction", "loss", "weighting", "timesteps", "guidance", "clipping"),
            *("space", "sampler", "optimizer", "lr_schedule", "ema", "strategy"),
        )
    },
    "self_conditioning_clipping": "clipping",
}
# Nodes that a node of a section in NAMED may contain, as the section `sampling` does.
WITHIN = ("sampler", "clipping", "guidance", "task", "features")

# Sections around a training that are never stored in a checkpoint.
WIRING = ("callbacks", "logger", "strategy")

# The base class of each group, by import path so that looking a part up imports nothing.
BASES = {
    "callbacks": "lightning.pytorch.Callback",
    "clipping": "diffusion.clipping.Clipping",
    "conditioning": "diffusion.conditioners.base.Conditioner",
    "dataset": "diffusion.data.base.Data",
    "ema": "diffusion.optimization.averages.Profiles",
    "features": "diffusion.evaluation.features.base.Features",
    "guidance": "diffusion.guidance.Guidance",
    "loss": "diffusion.losses.objective.Objective",
    "logger": "lightning.pytorch.loggers.Logger",
    "lr_schedule": "diffusion.optimization.lr_schedule.RateSchedule",
    "metric": "diffusion.evaluation.metrics.base.Metric",
    "network": "torch.nn.Module",
    "optimizer": "diffusion.optimization.optimizers.Optimizer",
    "prediction": "diffusion.parametrization.Parametrization",
    "sampler": "diffusion.samplers.base.Sampler",
    "schedule": "diffusion.schedule.Schedule",
    "space": "diffusion.spaces.base.Space",
    "strategy": "lightning.pytorch.strategies.Strategy",
    "task": "diffusion.tasks.generate.Generate",
    "timesteps": "diffusion.losses.timesteps.Timesteps",
    "weighting": "diffusion.losses.weighting.Weighting",
}


def classes(group: str) -> dict[str, str]:
    """Name -> import path of every class of a group, including the user's.

    Raises UserError if two classes have the same name: a checkpoint could not distinguish them.
    """
    return _classes(group, conf_folders.user())


def registered() -> dict[str, str]:
    """Import path -> group of every class that a config can build."""
    return _registered(conf_folders.user())


@functools.cache
def _classes(group: str, user: Path | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in sorted(
        conf_folders.choices(group).values(), key=lambda file: not file.is_relative_to(conf_folders.package())
    ):
        for _, path in conf_folders.targets(file):
            name = path.rpartition(".")[2]
            if found.setdefault(name, path) != path:
                raise UserError(f"{file} names {path}, but {found[name]} already has that name: rename yours")
    return found


@functools.cache
def _registered(user: Path | None) -> dict[str, str]:
    return {path: group for group in conf_folders.groups() for path in classes(group).values()}


def class_at(path: Any) -> Callable[..., Any]:
    """The class of an import path, or the function that makes one of its group.

    Raises UserError for a path that no group has, before it is imported, and for a class without the group's base.
    """
    if not isinstance(path, str) or path not in registered():
        raise UserError(f"the config names {path!r}, which no file of conf/ names: it is not built")
    group, found = registered()[path], _imported(path)
    made = found if isinstance(found, type) else typing.get_type_hints(found).get("return")
    if group in BASES and not (isinstance(made, type) and issubclass(made, _imported(BASES[group]))):
        raise UserError(f"conf/{group}/ names {path}, which is no {BASES[group]}: it is not built")
    return found


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def named(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as stored in files: a copy whose nodes name their class."""
    config = copy.deepcopy(dict(config))
    for _, node in nodes(config):
        name_class(node)
    return config


def name_class(node: dict[str, Any]) -> None:
    """Changes a node from its form in memory to its form in a file."""
    if TARGET in node:
        node[CLASS] = node.pop(TARGET).rpartition(".")[2]


def resolved(config: Mapping[str, Any], source: object, hint: str = "") -> dict[str, Any]:
    """The config of the file `source` in its form in memory: a copy whose nodes have import paths. hint: what to do
    when a part is missing.

    Raises UserError if a node names a class that its group lacks, or if anything but a node names a class.
    """
    config = copy.deepcopy(dict(config))
    if (stray := next(_strays(config), None)) is not None:
        raise UserError(f"{source}: {stray[0]} names {stray[1]!r}, but is not a part: not a config of this program")
    for key, node in nodes(config):
        if CLASS in node:
            group, name = _group(key), node.pop(CLASS)
            if group is None or not isinstance(name, str) or name not in classes(group):
                raise UserError(
                    f"{source}: {key} is {name!r}, which no file of conf/{group}/ names: it is not built{hint}"
                )
            node[TARGET] = classes(group)[name]
    return config


def nodes(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes of a training's config that name a class, each with its key."""
    for key in NODES:
        node: Any = config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict):
            yield key, node
    for section in NAMED:
        named = config.get(section)
        for name, node in named.items() if isinstance(named, dict) else ():
            if isinstance(node, dict):
                yield f"{section}.{name}", node
                yield from ((f"{section}.{name}.{key}", node[key]) for key in WITHIN if isinstance(node.get(key), dict))


def _group(key: str) -> str | None:
    """The group of the node at `key`; None where no node is allowed."""
    match key.split("."):
        case [section, _] if section in NAMED:
            return section
        case [section, _, group] if section in NAMED and group in WITHIN:
            return group
    return NODES.get(key)


def _strays(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Keys outside the nodes that name a class, each with the class."""
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return
    for name, one in value.items():
        if name == TARGET or (name == CLASS and _group(key) is None):
            yield key or "the config", one
        yield from _strays(one, f"{key}.{name}" if key else str(name))
