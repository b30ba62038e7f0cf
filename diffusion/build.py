"""Config -> objects: the wiring diagram, and the only place that instantiates by name."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from diffusion.denoiser import Denoiser
from diffusion.errors import UserError
from diffusion.lit import LitDiffusion
from diffusion.schedule import Schedule

# A config may come from a stranger's checkpoint: only what these rooms define can be built from it.
_ROOMS = (
    "diffusion.averages",
    "diffusion.clipping",
    "diffusion.data",
    "diffusion.evaluation",
    "diffusion.guidance",
    "diffusion.losses",
    "diffusion.networks",
    "diffusion.optimizers",
    "diffusion.prediction",
    "diffusion.samplers",
    "diffusion.schedule",
    "diffusion.tasks",
)


def _resolve(target: Any) -> Any:
    """The class or function that a `_target_` names, looked up in our own rooms alone."""
    module_name, _, name = str(target).rpartition(".")
    if any(module_name == room or module_name.startswith(room + ".") for room in _ROOMS):
        try:
            found = getattr(importlib.import_module(module_name), name, None)
        except ModuleNotFoundError as error:
            if error.name != module_name:
                raise
            found = None
        if getattr(found, "__module__", None) == module_name:
            return found
    raise UserError(f"the config names {target!r}, which is not a part of this package: it is not built")


def instantiate(node: Mapping[str, Any], **given: Any) -> Any:
    """Builds what node's `_target_` names from its other keys and `given`. Raises UserError for a target outside this
    package and for arguments it does not take."""
    target = _resolve(node.get("_target_"))
    arguments = {key: value for key, value in node.items() if key not in ("_target_", "name")} | given
    try:
        inspect.signature(target).bind(**arguments)
    except TypeError as error:
        raise UserError(
            f"{node['_target_']}: {error}; it takes {', '.join(inspect.signature(target).parameters)}"
        ) from None
    return target(**arguments)


def schedule(node: Mapping[str, Any]) -> Schedule:
    """The schedule of its config; `zero_terminal_snr` rescales it."""
    made = instantiate({key: value for key, value in node.items() if key != "zero_terminal_snr"})
    return made.with_zero_terminal_snr() if node.get("zero_terminal_snr") else made


def model(config: Mapping[str, Any]) -> LitDiffusion:
    """The untrained LitDiffusion of a resolved config in plain containers; its weights follow from config's seed."""
    channels, size = config["dataset"]["channels"], config["dataset"]["size"]
    objective = instantiate(config["loss"], weighting=instantiate(config["weighting"]))
    self_condition, classes = config["self_conditioning"], config["conditioning"]["classes"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        network = instantiate(
            config["network"],
            in_channels=channels * (2 if self_condition else 1),
            out_channels=channels * (2 if objective.learns_variance else 1),
            size=size,
            num_classes=len(classes) if classes else None,
        )
    denoiser = Denoiser(network, schedule(config["schedule"]), instantiate(config["prediction"]), self_condition)
    return LitDiffusion(
        denoiser,
        sampler=instantiate(config["sampler"]),
        clip=instantiate(config["clipping"]),
        shape=(channels, size, size),
        optimizer=instantiate(config["optimizer"], decay=instantiate(config["lr_schedule"])),
        objective=objective,
        timesteps=instantiate(config["timesteps"]),
        guidance=instantiate(config["guidance"]),
        classes=classes,
        label_drop=config["conditioning"]["drop"],
        seed=config["seed"],
        config=dict(config),
    )
