"""What a reader of another program's model hands over, and what all readers need."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import build
from diffusion.errors import UserError


@dataclass(frozen=True)
class Foreign:
    """A model of another program in our words.

    config: overrides of the composed train config, nested; nodes with a `_target_` are whole. weights, ema: of our
    network, our names, float32. step: optimiser steps it was trained for.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    step: int


def read_tensors(path: str | Path) -> dict[str, Any]:
    """The contents of a file that torch.save wrote, a dict; nothing is unpickled. Raises UserError where that fails."""
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and hostile files raise whatever they like
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read without running code of it, or at all ({reason})") from error
    if not isinstance(contents, dict):
        raise UserError(f"{path}: holds a {type(contents).__name__}, expected named tensors")
    return contents


@contextmanager
def reading(path: str | Path, what: str) -> Iterator[None]:
    """Whatever a strange file makes its reader stumble over becomes a UserError: it is not `what` was expected."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        raise UserError(f"{path}: not {what} ({type(error).__name__}: {reason})") from error


def skeleton(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict, without numbers, of the network of a `Foreign`'s config. Raises UserError where its words do not
    fit each other."""
    channels, classes = config["dataset"]["channels"], config["conditioning"]["classes"]
    objective = build.instantiate(
        config["loss"], weighting=build.instantiate({"_target_": "diffusion.losses.weighting.Simple"})
    )
    with torch.device("meta"):
        network = build.instantiate(
            config["network"],
            in_channels=channels * (2 if config.get("self_conditioning") else 1),
            out_channels=channels * (2 if objective.learns_variance else 1),
            size=config["dataset"]["size"],
            num_classes=len(classes) if classes else None,
        )
    return network.state_dict()


def rename(
    state: Mapping[str, Tensor], modules: Mapping[str, str], path: str | Path, leaves: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """The tensors under our names, float32. modules: theirs -> ours; leaves: names of parameters, where they differ.

    Raises UserError for a tensor whose module has no place.
    """
    weights = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        if module not in modules or not isinstance(tensor, Tensor):
            raise UserError(f"{path}: {name} has no place in our network: it is of another, or another version")
        weights[f"{modules[module]}.{(leaves or {}).get(leaf, leaf)}"] = tensor.float()
    return weights


def fit(weights: dict[str, Tensor], network: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """The weights, where names and shapes are those of the network. Raises UserError where they are not."""
    for name, tensor in network.items():
        if name not in weights:
            raise UserError(f"{path}: {name} is missing: the file is cut off, or of another network")
        if weights[name].shape != tensor.shape:
            got, expected = tuple(weights[name].shape), tuple(tensor.shape)
            raise UserError(f"{path}: {name} has the shape {got}, expected {expected}")
    if extra := sorted(weights.keys() - network.keys()):
        raise UserError(f"{path}: {extra[0]} has no place in our network")
    return weights
