"""Warnings about settings that are valid but probably not intended. Each function issues a Notice or nothing."""

import warnings
from collections.abc import Mapping

from diffusion.clipping import Clipping
from diffusion.conditioners.base import Conditioner
from diffusion.conditioners.condition import PREVIOUS, Condition
from diffusion.ground.errors import Notice
from diffusion.guidance import Guidance

_FAR = 1.5  # times the size of the data: smaller factors are common, to reach a divisible size


def of_training(clip: Clipping, usual: Clipping, guidance: Guidance, conditioning: Mapping[str, Conditioner]) -> None:
    """Arguments as in LitDiffusion. clip: applied to the x_0 that a self-conditioned network receives; usual: the
    space's default clipping."""
    if PREVIOUS in conditioning and clip != usual:
        _notice(
            f"self_conditioning=true: in training, too, the network receives its x_0 after the clipping {clip}; "
            f"self_conditioning_clipping={usual} keeps that x_0 within the range of the data"
        )
    asked = {name: conditioner.drop for name, conditioner in conditioning.items() if name != PREVIOUS}
    if not asked and guidance.scale != 1 and guidance.needs(None):
        _notice(f"guidance.scale={guidance.scale:g} has no effect: the network has no condition (conditioning=none)")
    for name, drop in asked.items():
        if drop == 1:
            _notice(f"conditioning.{name}.drop=1: the {name} is always dropped in training; 0.1 drops one in ten")
    if asked and guidance.scale != 1:
        _of_drops(guidance, asked)


def of_sampling(guidance: Guidance, conditioning: Mapping[str, Conditioner], condition: Condition | None) -> None:
    """Arguments as in LitDiffusion.sample_batches."""
    asked = {name: conditioner.drop for name, conditioner in conditioning.items() if name != PREVIOUS}
    given = condition.asked if condition else ()
    for name, drop in asked.items():
        if name not in given:
            never = "" if drop else f", for which this network was not trained (conditioning.{name}.drop=0)"
            key, what = ("y", "a class") if name == "label" else (f"condition.{name}", "it")
            _notice(f"{key} is not given: the images are drawn without {what}{never}")
    if given and guidance.scale != 1:
        _of_drops(guidance, {name: asked[name] for name in given if name in asked})


def of_turns(asked: int, drawn: int, n: int, enough: int) -> None:
    """n images cover only `drawn` of the `asked` classes or other conditions; enough: the n that covers all."""
    if drawn < asked:
        _notice(f"y has {asked} classes, but n={n} images cover only the first {drawn}: n={enough} covers all")


def of_size(name: str, size: int, original: int | None) -> None:
    """size: of the images in training; original: of those in the dataset `name`, None if unknown. Both in pixels."""
    if original is not None and size > _FAR * original:
        _notice(
            f"dataset.size={size}, but the images of {name} are {original} pixels wide: padding or upscaling costs "
            "time and adds no information"
        )


def of_pictures(channels: int) -> None:
    """channels: of a stored value; images show at most three of them."""
    if channels > 3:
        _notice(f"images show the first three of the {channels} channels")


def _of_drops(guidance: Guidance, drops: Mapping[str, float]) -> None:
    """drops: of the conditions that guidance acts on, by name."""
    for name, drop in drops.items():
        if not drop and guidance.needs(None):
            what = "a class" if name == "label" else f"a {name}"
            _notice(
                f"guidance.scale={guidance.scale:g} compares with images without {what}, for which this network was "
                f"not trained (conditioning.{name}.drop=0): use guidance.scale=1, or train with "
                f"conditioning.{name}.drop=0.1"
            )


def _notice(text: str) -> None:
    warnings.warn(text, Notice, stacklevel=4)
