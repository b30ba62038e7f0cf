"""Config -> objects: how the parts are connected, and the only module that instantiates by name."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from diffusion.clipping import Clipping
from diffusion.conditioners.base import Conditioner
from diffusion.conditioners.condition import PREVIOUS
from diffusion.conditioners.self_conditioning import Previous
from diffusion.config.registry import TARGET, WIRING, class_at
from diffusion.denoiser import Denoiser
from diffusion.ground.errors import Notice, UserError
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.losses.objective import Distance
from diffusion.schedule import Schedule
from diffusion.spaces.base import Space


def instantiate(node: Mapping[str, Any], offered: Mapping[str, Any] | None = None, **given: Any) -> Any:
    """Builds the `_target_` of a node from its other keys, `given`, and those of `offered` that it takes.

    Raises UserError for a target that is not registered or not of its group's base class, and for arguments that it
    does not take.
    """
    target = class_at(node.get(TARGET))
    takes = inspect.signature(target)
    arguments = {key: value for key, value in (offered or {}).items() if key in takes.parameters}
    arguments |= {key: value for key, value in node.items() if key != TARGET} | given
    try:
        takes.bind(**arguments)
    except TypeError as error:
        raise UserError(f"{node['_target_']}: {error}; it takes {', '.join(takes.parameters)}") from None
    return target(**arguments)


def schedule(node: Mapping[str, Any]) -> Schedule:
    """The schedule of its config; `zero_terminal_snr` rescales it."""
    made = instantiate({key: value for key, value in node.items() if key != "zero_terminal_snr"})
    return made.with_zero_terminal_snr() if node.get("zero_terminal_snr") else made


def conditioners(config: Mapping[str, Any]) -> dict[str, Conditioner]:
    """The conditioners of a config, by name; that of self-conditioning is the last."""
    made: dict[str, Conditioner] = {name: instantiate(node) for name, node in config["conditioning"].items()}
    return {**made, PREVIOUS: Previous()} if config["self_conditioning"] else made


def with_steps_of(schedule: Schedule, node: Mapping[str, Any], key: str = "sampler") -> dict[str, Any]:
    """The config `node` of a sampler with its default number of steps limited to those of the schedule, or of its list
    of times. A Notice reports a change. key: of the sampler on the command line."""
    steps, times = node.get("steps"), node.get("times")
    if steps is not None:
        steps = len(times) - 1 if isinstance(times, list | tuple) else min(steps, schedule.T)
    if steps == node.get("steps"):
        return dict(node)
    warnings.warn(f"{key}.steps={steps} instead of the usual {node['steps']}: there are no more", Notice, stacklevel=2)
    return {**node, "steps": steps}


def space(config: Mapping[str, Any]) -> Space:
    """The space of a training's config, for the shape that its data set stores."""
    dataset = config["dataset"]
    shape = dataset.get("shape") or (dataset["channels"], dataset["size"], dataset["size"])
    return instantiate(config["space"], shape=shape)


def clipping(node: Mapping[str, Any], space: Space) -> Clipping:
    """The clipping of its config, to the bounds of `space`."""
    return instantiate(node, {"bounds": space.bounds})


def model(config: Mapping[str, Any]) -> LitDiffusion:
    """The untrained LitDiffusion of a resolved config in plain containers; config's seed determines its weights. What
    only training needs is not built: see `trainable`.

    Raises: UserError for a `_target_` that is not registered.
    """
    of = space(config)
    channels, *size = of.x_0_shape
    decoder = {"log_likelihood": of.log_likelihood}
    shown = config["self_conditioning_clipping"]
    objective = instantiate(config["loss"], decoder, weighting=instantiate(config["weighting"]))
    conditioning = conditioners(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"] % 2**64)  # torch takes no more
        network = instantiate(
            config["network"],
            in_channels=channels,
            out_channels=channels * (2 if objective.learns_variance else 1),
            size=size,
            conditioners=conditioning,
        )
    denoiser = Denoiser(network, schedule(config["schedule"]), instantiate(config["prediction"]))
    if (
        isinstance(objective, Distance)
        and objective.weighting(denoiser.schedule, torch.tensor(denoiser.schedule.T)) == 0
    ):
        raise UserError(
            "with zero_terminal_snr this weighting gives x_T no weight, so it is never learnt: use weighting=snr"
        )
    return LitDiffusion(
        denoiser,
        sampler=instantiate(config["sampler"]),
        clip=clipping(config["clipping"], of),
        shown_clip=None if shown is None else clipping(shown, of),
        space=of,
        objective=objective,
        guidance=instantiate(config["guidance"]),
        conditioning=conditioning,
        seed=config["seed"],
        config={key: value for key, value in config.items() if key not in WIRING},
    )


def trainable(config: Mapping[str, Any]) -> LitDiffusion:
    """`model`, with the optimiser and the timesteps of its training.

    Raises: UserError as `model` does, and for a key of the training that has no effect.
    """
    if config["self_conditioning_clipping"] is not None and not config["self_conditioning"]:
        raise UserError(
            "self_conditioning_clipping has no effect: it clips what self_conditioning=true shows the network"
        )
    made = model(config)
    made.optimizer = instantiate(config["optimizer"], decay=instantiate(config["lr_schedule"]))
    made.timesteps = instantiate(config["timesteps"])
    return made
