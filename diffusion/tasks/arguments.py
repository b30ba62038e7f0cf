"""What a caller in Python hands to sampling, brought to one form. Each function raises UserError that names the
argument, what it was, and what was expected."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion.errors import UserError
from diffusion.guidance import Guidance
from diffusion.samplers.base import Sampler
from diffusion.spaces.base import Space
from diffusion.tasks.generate import Generate
from diffusion.values import whole_or_none

_LISTED = 50  # classes in a message
_OBJECTS: dict[str, tuple[type, str]] = {  # the class that is expected, and an example
    "sampler": (Sampler, "diffusion.samplers.ddim.DDIM(steps=50)"),
    "task": (Generate, "diffusion.tasks.img2img.Img2Img(image, t, model.space)"),
    "guidance": (Guidance, "diffusion.guidance.Guidance(scale=2.0)"),
    "clip": (Callable, "diffusion.clipping.Dynamic()"),
}


def check_objects(space: Space, y: Any, **given: Any) -> None:
    """That these can be given by their names, keys of _OBJECTS, where they are not None. space: the model's; y: as in
    `labels`."""
    for name, value in given.items():
        kind, example = _OBJECTS[name]
        if value is not None and (isinstance(value, type) or not isinstance(value, kind)):
            raise UserError(f"{name}={value!r}: expected an object, such as {example}")
    if given["guidance"] is not None and y is None:
        raise UserError("guidance leads towards a class: give y")
    task = given["task"]
    if task is not None and task.space != space:
        raise UserError(f"task is for {task.space}, the model's is {space}: give it model.space")


def indices(value: Any) -> Tensor:
    """The numbers of images, int64 (n,), on the CPU."""
    given = value.tolist() if hasattr(value, "tolist") else value
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    numbers = [whole_or_none(one) for one in given] if listed else [None]
    if any(number is None or number < 0 for number in numbers):
        raise UserError(f"index={value!r}: expected the numbers of images, each 0 or more, such as torch.arange(16)")
    return torch.tensor(numbers, dtype=torch.int64)


def labels(y: Any, n: int, classes: Sequence[str] | None) -> Tensor | None:
    """The labels of n images, int64 (n,), or None: y is a class for all of them, or one for each. A class is its number
    in `classes`, or its name."""
    if y is None:
        return None
    if classes is None:
        raise UserError(f"y={y!r}: this model was trained without classes (conditioning=none)")
    given = y.tolist() if hasattr(y, "tolist") else y
    each = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given] * n
    if len(each) != n:
        raise UserError(f"y has {len(each)} classes for {n} images: give one for all, or one for each")
    return torch.tensor([_label(one, classes) for one in each], dtype=torch.int64)


def _label(one: Any, classes: Sequence[str]) -> int:
    if isinstance(one, str) and one in classes:
        return classes.index(one)
    number = whole_or_none(one)
    if number is not None and 0 <= number < len(classes):
        return number
    known = [f"{k} ({name})" for k, name in enumerate(classes[:_LISTED])]
    known += [f"... ({len(classes)} in all)"] * (len(classes) > _LISTED)
    raise UserError(f"y={one!r}: no such class; choose among {', '.join(known)}; y=None draws without a class")
