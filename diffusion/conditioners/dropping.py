"""Conditions dropped in training, so that one network learns both with and without them (Ho & Salimans 2022)."""

from collections.abc import Mapping

from torch import Tensor

from diffusion.conditioners.base import Conditioner
from diffusion.conditioners.condition import PREVIOUS, Condition
from diffusion.ground import random


def dropped(seed: int, index: Tensor, condition: Condition, conditioning: Mapping[str, Conditioner]) -> Condition:
    """The condition of the images `index`, int64 (B,), in which each named condition is absent with the probability
    `drop` of its conditioner; for self-conditioning it is drawn with the batch, see `lit.training_inputs`."""
    for name, conditioner in conditioning.items():
        if name != PREVIOUS and conditioner.drop:
            condition = condition.without(random.uniform(seed, f"train/{name}", index) < conditioner.drop, [name])
    return condition
