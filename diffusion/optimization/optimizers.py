"""Optimizers, and their state by the names of the parameters."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from diffusion.config.value_types import Betas, NonNegative, checked
from diffusion.ground.errors import UserError
from diffusion.optimization.fitted_rate import Rate
from diffusion.optimization.lr_schedule import LearningRate


class Optimizer(ABC):
    """Hyperparameters of an optimizer."""

    @abstractmethod
    def build(
        self, parameters: Iterable[nn.Parameter], undecayed: Iterable[nn.Parameter] = ()
    ) -> tuple[torch.optim.Optimizer, Rate]:
        """The optimizer of the parameters, those with weight decay first, and its learning rate, to be stepped once per
        optimizer step."""


@checked
@dataclass(frozen=True)
class AdamW(LearningRate, Optimizer):
    """AdamW (Loshchilov & Hutter 2019), with the keys of its `LearningRate`."""

    betas: Betas = (0.9, 0.999)
    weight_decay: NonNegative = 0.0

    def build(
        self, parameters: Iterable[nn.Parameter], undecayed: Iterable[nn.Parameter] = ()
    ) -> tuple[torch.optim.AdamW, Rate]:
        """The fused optimizer."""
        groups = [{"params": [*parameters]}, {"params": [*undecayed], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.lr,
            betas=(self.betas[0], self.betas[1]),
            weight_decay=self.weight_decay,
            fused=True,
        )
        return optimizer, Rate(optimizer, self)


def by_name(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """An optimizer's state dict by parameter names instead of positions: by position, reordered modules would silently
    get each other's moments."""
    if not all(isinstance(each, int) for group in state.get("param_groups", []) for each in group["params"]):
        return dict(state)  # already by name, from a strategy that shards
    return _renamed(state, dict(enumerate(names))) if state else {}


def by_position(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The inverse of `by_name`. Raises UserError if the state has other names."""
    known = {name for group in state["param_groups"] for name in group["params"]}
    if known != {*names}:
        odd = sorted(known ^ {*names})
        raise UserError(f"the optimizer state is of other parameters ({', '.join(odd[:3])}): use resume_mode=weights")
    return _renamed(state, {name: position for position, name in enumerate(names)})


def _renamed(state: Mapping[str, Any], keys: Mapping[Any, Any]) -> dict[str, Any]:
    groups = [{**group, "params": [keys[each] for each in group["params"]]} for group in state["param_groups"]]
    return {**state, "state": {keys[each]: value for each, value in state["state"].items()}, "param_groups": groups}
