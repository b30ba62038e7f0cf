"""Optimisers and their learning rates, as a function of the optimiser step."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from diffusion.config.values import Betas, Count, Fraction, Natural, NonNegative, Positive, checked
from diffusion.ground.errors import UserError
from diffusion.optimization.rate import Rate


class RateSchedule(ABC):
    """How the learning rate changes after the warm-up."""

    @abstractmethod
    def __call__(self, step: int, end: int | None = None) -> float:
        """The share of lr used in optimiser step `step`, counted from 0, of a run of `end` steps (None: not known)."""


@dataclass(frozen=True)
class Constant(RateSchedule):
    """The learning rate stays as it is."""

    def __call__(self, step: int, end: int | None = None) -> float:
        return 1.0


@checked
@dataclass(frozen=True)
class CosineDecay(RateSchedule):
    """Half a cosine from lr to final * lr over `steps` optimiser steps (Loshchilov & Hutter 2017), then constant.

    steps: None is to the end of the run; so long as that is not known, the rate does not fall.
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
    """Constant for `steps` optimiser steps, then lr / sqrt(step / steps) (Karras et al. 2024, Eq. 67)."""

    steps: Count

    def __call__(self, step: int, end: int | None = None) -> float:
        return 1 / math.sqrt(max(1.0, step / self.steps))


class Optimizer(ABC):
    """Hyperparameters of an optimiser."""

    @abstractmethod
    def build(
        self, parameters: Iterable[nn.Parameter], undecayed: Iterable[nn.Parameter] = ()
    ) -> tuple[torch.optim.Optimizer, Rate]:
        """The optimiser over the parameters, first those with weight decay, and its learning rate, to be stepped once
        per optimiser step."""


@checked
@dataclass(frozen=True)
class AdamW(Optimizer):
    """AdamW at lr * decay(step, end), with a linear warm-up over `warmup_steps` optimiser steps, though never more than
    `warmup_share` of the run (None: all the same)."""

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
        """The share of lr used in optimiser step `step`, counted from 0, of a run of `end` steps (None: not known)."""
        return min(1.0, (step + 1) / max(1, self.warmup(end))) * self.decay(step, end)

    def build(
        self, parameters: Iterable[nn.Parameter], undecayed: Iterable[nn.Parameter] = ()
    ) -> tuple[torch.optim.AdamW, Rate]:
        """The fused optimiser."""
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
    """An optimiser's state dict with the names of its parameters instead of their positions: by position, the moments
    of a module that has moved would become another's in silence."""
    if not all(isinstance(each, int) for group in state.get("param_groups", []) for each in group["params"]):
        return dict(state)  # a strategy that shards has named them already
    return _renamed(state, dict(enumerate(names))) if state else {}


def by_position(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The inverse of `by_name`. Raises UserError where `names` are not those of the state."""
    known = {name for group in state["param_groups"] for name in group["params"]}
    if known != {*names}:
        odd = sorted(known ^ {*names})
        raise UserError(f"the optimiser's state is of other parameters ({', '.join(odd[:3])}): resume_mode=weights")
    return _renamed(state, {name: position for position, name in enumerate(names)})


def _renamed(state: Mapping[str, Any], keys: Mapping[Any, Any]) -> dict[str, Any]:
    groups = [{**group, "params": [keys[each] for each in group["params"]]} for group in state["param_groups"]]
    return {**state, "state": {keys[each]: value for each, value in state["state"].items()}, "param_groups": groups}
