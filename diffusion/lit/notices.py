"""What is allowed, but perhaps not meant: each function warns with a Notice, or says nothing."""

import warnings
from collections.abc import Mapping

from diffusion.clipping import Clipping
from diffusion.conditioners.base import Conditioner
from diffusion.conditioners.condition import PREVIOUS, Condition
from diffusion.ground.errors import Notice
from diffusion.guidance import Guidance

_FAR = 1.5  # times the data's own size: up to there it is done for a size that divides well


def of_training(clip: Clipping, usual: Clipping, guidance: Guidance, conditioning: Mapping[str, Conditioner]) -> None:
    """Arguments as those of LitDiffusion; clip: of what a self-conditioned network is shown, and what is usual in the
    space."""
    if PREVIOUS in conditioning and clip != usual:
        _notice(
            f"self_conditioning=true: in training, too, the network is shown its x_0 after the clipping, {clip}; "
            f"with self_conditioning_clipping={usual} it learns from x_0 where the data lie"
        )
    asked = {name: conditioner.drop for name, conditioner in conditioning.items() if name != PREVIOUS}
    if not asked and guidance.scale != 1 and guidance.needs(None):
        _notice(
            f"guidance.scale={guidance.scale:g} has no effect: the network is given no condition (conditioning=none)"
        )
    for name, drop in asked.items():
        if drop == 1:
            _notice(
                f"conditioning.{name}.drop=1: the network is never given its {name}; with 0.1 one in ten is left out"
            )
    if asked and guidance.scale != 1:
        _of_drops(guidance, asked)


def of_sampling(guidance: Guidance, conditioning: Mapping[str, Conditioner], condition: Condition | None) -> None:
    """Arguments as those of LitDiffusion.sample_batches."""
    asked = {name: conditioner.drop for name, conditioner in conditioning.items() if name != PREVIOUS}
    given = condition.asked if condition else ()
    for name, drop in asked.items():
        if name not in given:
            never = "" if drop else f", which this network was never trained to do (conditioning.{name}.drop=0)"
            key, what = ("y", "a class") if name == "label" else (f"condition.{name}", "it")
            _notice(f"{key} is not given: the images are drawn without {what}{never}")
    if given and guidance.scale != 1:
        _of_drops(guidance, {name: asked[name] for name in given if name in asked})


def of_turns(asked: int, drawn: int, n: int, enough: int) -> None:
    """Of the classes, or other conditions, asked for, how many are drawn by n images, and the n that draws them all."""
    if drawn < asked:
        _notice(f"y has {asked} classes, and n={n} images are of the first {drawn} of them: n={enough} has all")


def of_size(name: str, size: int, own: int | None) -> None:
    """size: of the images of the data set `name` in training; own: as they are, in pixels, None where not known."""
    if own is not None and size > _FAR * own:
        _notice(
            f"dataset.size={size}, but the images of {name} are {own} pixels wide: what is added, a border or larger "
            "pixels, costs time and teaches nothing"
        )


def of_pictures(channels: int) -> None:
    """channels: of what is stored, which pictures are to show."""
    if channels > 3:
        _notice(f"pictures show the first three of the {channels} channels")


def _of_drops(guidance: Guidance, drops: Mapping[str, float]) -> None:
    """drops: of what guidance leads towards, by name."""
    for name, drop in drops.items():
        if not drop and guidance.needs(None):
            what = "a class" if name == "label" else f"a {name}"
            _notice(
                f"guidance.scale={guidance.scale:g} compares with images without {what}, which this network never saw "
                f"(conditioning.{name}.drop=0): guidance.scale=1, or train with conditioning.{name}.drop=0.1"
            )


def _notice(text: str) -> None:
    warnings.warn(text, Notice, stacklevel=4)
