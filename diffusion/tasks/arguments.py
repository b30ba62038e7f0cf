"""Validates and normalizes the arguments of sampling in Python. Each function raises UserError with the argument, its
value, and what was expected."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion.conditioners.base import Conditioner
from diffusion.conditioners.condition import PREVIOUS, Condition
from diffusion.config.value_types import whole_or_none
from diffusion.ground.errors import UserError
from diffusion.guidance import Guidance
from diffusion.samplers.base import Sampler
from diffusion.spaces.base import Space
from diffusion.tasks.generate import Generate

_OBJECTS: dict[str, tuple[Callable[[Any], bool], str]] = {  # a test, and an example
    "sampler": (lambda value: isinstance(value, Sampler), "diffusion.samplers.ddim.DDIM(steps=50)"),
    "task": (lambda value: isinstance(value, Generate), "diffusion.tasks.img2img.Img2Img(image, t, model.space)"),
    "guidance": (lambda value: isinstance(value, Guidance), "diffusion.guidance.ClassifierFree(scale=2.0)"),
    "clip": (callable, "diffusion.clipping.Dynamic()"),
}


def check_objects(space: Space, **given: Any) -> None:
    """Checks the types of the given objects, by keys of _OBJECTS; None is allowed. space: the model's."""
    for name, value in given.items():
        fits, example = _OBJECTS[name]
        if value is not None and (isinstance(value, type) or not fits(value)):
            raise UserError(f"{name}={value!r}: expected an object, such as {example}")
    task = given["task"]
    if task is not None and task.space != space:
        raise UserError(f"task is for {task.space}, the model's is {space}: pass model.space")


def indices(value: Any) -> Tensor:
    """The numbers of images, int64 (n,), on the CPU."""
    given = value.tolist() if hasattr(value, "tolist") else value
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    numbers = [whole_or_none(one) for one in given] if listed else [None]
    if any(number is None or number < 0 for number in numbers):
        raise UserError(f"index={value!r}: expected the numbers of images, each 0 or more, such as torch.arange(16)")
    return torch.tensor(numbers, dtype=torch.int64)


def condition(given: Any, y: Any, n: int, conditioning: Mapping[str, Conditioner]) -> Condition | None:
    """The condition of n images, or None if unconditional. given: a Condition, or values for the conditioners by name;
    y: short for the name `label`."""
    if isinstance(given, Condition):
        if len(given) != n:
            raise UserError(f"condition has {len(given)} rows for {n} images: give one for each")
        asked = dict.fromkeys(given.asked)
    elif given is None or isinstance(given, Mapping):
        asked = {name: value for name, value in (given or {}).items() if value is not None}
    else:
        raise UserError(f"condition={given!r}: expected a Condition, or a dict such as {{'label': 3}}")
    if y is not None:
        if "label" in asked:
            raise UserError("y is short for the condition's label: use one of them")
        asked["label"] = y
    for name, value in asked.items():
        if name not in conditioning or name == PREVIOUS:
            raise UserError(
                unknown(name, repr(value), conditioning, "y" if y is not None and name == "label" else name)
            )
    made = given if isinstance(given, Condition) else Condition(n)
    for name, value in asked.items():
        if value is not None:
            key = "y" if name == "label" and y is not None else name
            made = made.also(**{name: conditioning[name].rows(key, value, n)})
    return made if made.asked else None


def unknown(name: str, text: str, conditioning: Mapping[str, Conditioner], key: str) -> str:
    """The message for a condition that the network does not have. key, text: as the user wrote it."""
    if name == "label":
        return f"{key}={text}: this model was trained without classes (conditioning=none)"
    known = ", ".join(other for other in conditioning if other != PREVIOUS)
    return f"{key}={text}: this model was trained without it; it takes {known or 'no condition'}"
