"""The Lightning strategy of a run: a node of conf/strategy/, which also selects the hardware."""

from collections.abc import Mapping
from typing import Any, TypedDict

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy

from diffusion.config.registry import TARGET, class_at
from diffusion.config.value_types import Count, Devices
from diffusion.runs import build

SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
"""Strategies in which each process holds only a part of the weights."""


class HardwareKeys(TypedDict):
    """The keys of conf/strategy/ that are arguments of the Trainer, not of the strategy."""

    accelerator: str
    devices: Devices
    num_nodes: Count


HARDWARE = {"accelerator": "auto", "devices": "auto", "num_nodes": 1}
"""The defaults of the hardware keys."""


class StrategyKeys(HardwareKeys):
    """The hardware keys, and arguments that a strategy accepts without declaring them."""

    find_unused_parameters: bool  # DDP forwards it to torch


def strategy(node: Mapping[str, Any]) -> Strategy | str:
    """Builds the strategy of a config; "auto" if it names no class, and Lightning chooses. Raises what its constructor
    raises."""
    return (
        build.instantiate({key: node[key] for key in node if key not in HardwareKeys.__annotations__})
        if TARGET in node
        else "auto"
    )


def name(node: Mapping[str, Any]) -> str:
    """The name of the strategy's class, or auto."""
    return node.get(TARGET, "auto").rpartition(".")[2]


def is_sharded(node: Mapping[str, Any], by: type[Strategy] | tuple[type[Strategy], ...] = SHARDED) -> bool:
    """Whether the config's strategy is an instance of `by`."""
    found = class_at(node[TARGET]) if TARGET in node else None
    return isinstance(found, type) and issubclass(found, by)
