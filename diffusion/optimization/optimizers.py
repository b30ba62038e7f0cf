"""Optimizers and their learning rates, as a function of the optimizer step."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from diffusion.config.value_types import Betas, Count, Fraction, Natural, NonNegative, Positive, checked
from diffusion.ground.errors import UserError
from diffusion.optimization.fitted_rate import Rate


class RateSchedule(ABC):
    """How the learning rate changes after the warm-up."""

    @abstractmethod
    def __call__(self, step: int, end: int | None = None) -> float:
        """The factor of lr in optimizer step `step`, counted from 0, of a run of `end` steps (None: unknown)."""


@dataclass(frozen=True)
class Constant(RateSchedule):
    """A constant learning rate."""

    def __call__(self, step: int, end: int | None = None) -> float:
        return 1.0


@checked
@dataclass(frozen=True)
class CosineDecay(RateSchedule):
    """Half a cosine from lr to final * lr over `steps` optimizer steps (Loshchilov & Hutter 2017), then constant.

    steps: None is to the end of the run; while that is unknown, the rate stays constant.
    """

    steps: Count | None = None
    final: Fraction = 0.0

    def __call__(self, step: int, end: int | None = None) -> float:
        end = self.steps or end
        done = min(1.0, step / end) if end else 0.0
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


@checked
@dataclass(frozen=True)
class InverseSqrt(RateSchedule):
    """Constant for `steps` optimizer steps, then lr / sqrt(step / steps) (Karras et al. 2024, Eq. 67)."""

    steps: Count

    def __call__(self, step: int, end: int | None = None) -> float:
        return 1 / math.sqrt(max(1.0, step / self.steps))


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
class AdamW(Optimizer):
    """AdamW at lr * decay(step, end), with a linear warm-up over `warmup_steps` optimizer steps, but at most
    `warmup_share` of the run (None: no limit)."""

    lr: Positive = 2e-4
    betas: Betas = (0.9, 0.999)
    weight_decay: NonNegative = 0.0
    warmup_steps: Natural = 500
    warmup_share: Fraction | None = 0.5
    decay: RateSchedule = Constant()

    def warmup(self, end: int | None = None) -> int:
        """The steps of the warm-up in a run of `end` steps."""
        if end is None or self.warmup_share is None:
            return self.warmup_steps
        return min(self.warmup_steps, int(self.warmup_share * end))

    def factor(self, step: int, end: int | None = None) -> float:
        """The factor of lr in optimizer step `step`, counted from 0, of a run of `end` steps (None: unknown)."""
        return min(1.0, (step + 1) / max(1, self.warmup(end))) * self.decay(step, end)

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
