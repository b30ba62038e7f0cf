"""What is allowed, but perhaps not meant: each function warns with a Notice, or says nothing."""

import warnings
from collections.abc import Callable, Sequence

from torch import Tensor

from diffusion.clipping import Static
from diffusion.errors import Notice
from diffusion.guidance import Guidance

_FAR = 1.5  # times the data's own size: up to there it is done for a size that divides well


def of_training(
    self_condition: bool,
    clip: Callable[[Tensor], Tensor],
    guidance: Guidance,
    classes: Sequence[str] | None,
    label_drop: float,
) -> None:
    """Arguments as those of LitDiffusion; self_condition: whether the network is shown its own last x_0, after clip."""
    if self_condition and clip != Static():
        _notice(
            f"self_conditioning=true: in training, too, the network is shown its x_0 after the clipping, {clip}; "
            "with self_conditioning_clipping=static it learns from [-1, 1]"
        )
    if not classes:
        for key, given, usual in ("guidance.scale", guidance.scale, 1), ("conditioning.drop", label_drop, 0):
            if given != usual:
                _notice(f"{key}={given:g} has no effect: the network is told no classes (conditioning=none)")
    elif label_drop == 1:
        _notice("conditioning.drop=1: no class is ever told to the network; with 0.1 one label in ten is left out")
    elif guidance.scale != 1:
        _of_drops(guidance, label_drop)


def of_sampling(guidance: Guidance, classes: Sequence[str] | None, label_drop: float, y: Tensor | None) -> None:
    """Arguments as those of LitDiffusion.sample_batches."""
    if classes and y is None:
        never = "" if label_drop else ", which this network was never trained to do (conditioning.drop=0)"
        _notice(f"y is not given: the images are drawn without a class{never}")
    elif classes and guidance.scale != 1:
        _of_drops(guidance, label_drop)


def of_classes(asked: int, drawn: int, n: int, enough: int) -> None:
    """Of the classes asked for, how many are drawn by n images, and the n that draws them all."""
    if drawn < asked:
        _notice(f"y has {asked} classes, and n={n} images are of the first {drawn} of them: n={enough} has all")


def of_size(name: str, size: int, own: int | None) -> None:
    """size: of the images of the data set `name` in training; own: as they are, in pixels, None where not known."""
    if own is not None and size > _FAR * own:
        _notice(
            f"dataset.size={size}, but the images of {name} are {own} pixels wide: what is added, a border or larger "
            "pixels, costs time and teaches nothing"
        )


def _of_drops(guidance: Guidance, label_drop: float) -> None:
    if not label_drop:
        _notice(
            f"guidance.scale={guidance.scale:g} compares with images without a class, which this network never saw "
            "(conditioning.drop=0): guidance.scale=1, or train with conditioning.drop=0.1"
        )


def _notice(text: str) -> None:
    warnings.warn(text, Notice, stacklevel=4)
