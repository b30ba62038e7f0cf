"""A model of another program, described by our config, and its conversion to a checkpoint. Nothing is unpickled."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from diffusion.config import upgrades
from diffusion.config.plain import plain
from diffusion.ground.errors import UserError, reading
from diffusion.ground.files import atomic
from diffusion.runs import checkpoint
from diffusion.runs import compose as configs

PREFIX = "denoiser.network."  # of the names of network weights in our checkpoints


@dataclass(frozen=True)
class Foreign:
    """A model of another program, described by our config.

    config: differences from the composed conf/train.yaml, nested, such as {"network": {...}, "schedule": {...},
        "dataset": {"channels": 3, "size": 32}}; a node with `_target_` is complete.
    weights: of our network, by our names without PREFIX, float32.
    ema: the averaged weights; None if the source has only one set.
    step: number of optimiser steps; 0 if unknown.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    ema: dict[str, Tensor] | None = None
    step: int = 0


def load(path: Path) -> Any:
    """The content of a weights file: tensors, and in formats other than safetensors, plain containers of them.

    Raises UserError for a file that cannot be read without unpickling.
    """
    with reading(path, "a readable file of weights"):
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)


def rename(theirs: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors by our names, as float32.

    names: their name -> ours. Several tensors of theirs with the same name of ours are concatenated along the first
    dimension, in the order of the table.
    Raises UserError if a tensor of the table is missing, or one of theirs is not in the table.
    """
    if missing := names.keys() - theirs.keys():
        raise UserError(f"weights are missing: {_some(missing)}")
    if left := theirs.keys() - names.keys():
        raise UserError(f"weights that this network does not have: {_some(left)}")
    parts: dict[str, list[Tensor]] = {}
    for old, new in names.items():
        parts.setdefault(new, []).append(theirs[old].float())
    return {name: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for name, tensors in parts.items()}


def by_module(
    theirs: Mapping[str, Tensor], modules: Mapping[str, str], leaves: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The table for `rename`, of the tensors whose module is in `modules`.

    modules: their modules -> ours. leaves: the same for the last part of the name, such as weight, if it differs.
    """
    names = {}
    for name in theirs:
        module, _, leaf = name.rpartition(".")
        if module in modules:
            names[name] = f"{modules[module]}.{(leaves or {}).get(leaf, leaf)}"
    return names


def unname(ours: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Our tensors by their names: the inverse of `rename`, with the same table."""
    several: dict[str, list[str]] = {}
    for old, new in names.items():
        several.setdefault(new, []).append(old)
    theirs: dict[str, Tensor] = {}
    for new, old in several.items():
        theirs |= zip(old, (part.contiguous() for part in ours[new].chunk(len(old))), strict=True)
    return theirs


def train_config(foreign: Foreign) -> dict[str, Any]:
    """The training config for this model: conf/train.yaml with a folder of images, overridden by `foreign.config`.
    Resolved, in plain containers."""
    composed = configs.compose("train", ["dataset=image_folder", "dataset.path=data"])
    return configs.over(plain(composed), foreign.config)


def write(foreign: Foreign, path: Path) -> None:
    """Writes a checkpoint for `sample.py`, `evaluate.py` and `train.py resume_mode=weights`.

    Raises UserError if the weights do not match the network in the config.
    """
    config = train_config(foreign)
    network = checkpoint.model_of(config, "the model").denoiser.network.state_dict()
    raw, averaged = (
        {PREFIX + name: weight for name, weight in fit(weights, network).items()}
        for weights in (foreign.weights, foreign.ema or foreign.weights)
    )
    contents = {"state_dict": raw, "ema_state_dict": averaged, "global_step": foreign.step}
    contents |= upgrades.stamped(config)
    with atomic(path) as temporary:
        torch.save(contents, temporary)


def fit(weights: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in the order of `network`, a state dict, and contiguous. Raises UserError if names or shapes differ
    from those of the network."""
    if weights.keys() != network.keys():
        raise UserError(f"the weights do not fit the network: {_some(weights.keys() ^ network.keys())} only in one")
    for name, parameter in network.items():
        got, expected = list(weights[name].shape), list(parameter.shape)
        if got != expected:
            raise UserError(f"{name} has the shape {got}, but {expected} in the network")
    return {name: weights[name].contiguous() for name in network}


def _some(names: set[str]) -> str:
    """The first names and the number of others."""
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
