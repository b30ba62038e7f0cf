"""The Lightning strategy of a run: a node of conf/strategy/, which also says on what hardware."""

from collections.abc import Mapping
from typing import Any, TypedDict

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy

from diffusion.config.registry import TARGET, class_at
from diffusion.config.values import Count, Devices
from diffusion.runs import build

SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
"""Those with which each process holds a part of the weights."""


class HardwareKeys(TypedDict):
    """The keys of conf/strategy/ that are no arguments of a strategy."""

    accelerator: str
    devices: Devices
    num_nodes: Count


HARDWARE = {"accelerator": "auto", "devices": "auto", "num_nodes": 1}
"""Where a strategy's yaml does not say it."""


class StrategyKeys(HardwareKeys):
    """And those that a strategy takes without saying so."""

    find_unused_parameters: bool  # which DDP hands on to torch


def strategy(node: Mapping[str, Any]) -> Strategy | str:
    """The strategy of its config; "auto" where it names no class: Lightning chooses. Raises what its constructor
    does."""
    return (
        build.instantiate({key: node[key] for key in node if key not in HardwareKeys.__annotations__})
        if TARGET in node
        else "auto"
    )


def name(node: Mapping[str, Any]) -> str:
    """Of its class, or auto."""
    return node.get(TARGET, "auto").rpartition(".")[2]


def is_sharded(node: Mapping[str, Any], by: type[Strategy] | tuple[type[Strategy], ...] = SHARDED) -> bool:
    """Whether the strategy of its config is one of these."""
    found = class_at(node[TARGET]) if TARGET in node else None
    return isinstance(found, type) and issubclass(found, by)
