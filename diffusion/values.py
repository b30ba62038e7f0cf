"""The vocabulary of annotations, which say what a key of the config and an argument in Python may be, and their check.

`Count` in a constructor is the bound of `KEY=VALUE` on the command line, in a yaml and in Python.
"""

import functools
import inspect
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from annotated_types import Ge, Gt, Interval, Len, Predicate

from diffusion.errors import UserError
from diffusion.kinds import AsTyped, Expected, Infinite, Kind, Matches, kind_of
from diffusion.registry import registered

Natural = Annotated[int, Ge(0)]
Count = Annotated[int, Ge(1)]
NonNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
PositiveFraction = Annotated[float, Interval(gt=0, le=1)]
OpenFraction = Annotated[float, Interval(gt=0, lt=1)]
ProperFraction = Annotated[float, Interval(ge=0, lt=1)]
NumberOrInfinity = Annotated[float, Infinite()]

File = str | Path
"""A path. The command line takes it as the shell hands it over."""
Node = Mapping[str, Any]
"""A section with a `_target_`, whose constructor says what it holds."""
Verbatim = Annotated[str, AsTyped()]
"""A text that is not parsed, such as the rows of a condition, which its conditioner reads."""

Switch = Literal["auto"] | bool
Betas = Annotated[tuple[ProperFraction, ProperFraction], Expected("a list of two numbers, each 0 or more and below 1")]
Levels = Annotated[
    tuple[NumberOrInfinity, NumberOrInfinity],
    Predicate(lambda pair: pair[0] <= pair[1]),
    Expected("two numbers [low,high], low not above high; high may be inf"),
]
Range = Annotated[
    Literal["container", "auto"] | Annotated[tuple[float, float], Predicate(lambda pair: pair[0] < pair[1])],
    Expected("container, auto, or two numbers [low,high], low below high"),
]
Times = Annotated[str | Sequence[float], Expected("a name such as trailing, or a list of times that ends with 0")]
Weights = Annotated[
    Annotated[str, Matches(r"[a-z_]+[\w.]*", "a name")] | OpenFraction,
    Expected("ema, raw, the name of an average, or a width such as 0.08"),
]
Keep = Annotated[
    Literal["all"] | Count | Annotated[str, Matches(r"every:[1-9]\d*", "every:k")],
    Expected("a count, all, or every:k"),
]
Devices = Annotated[
    Literal["auto", -1] | Count | Annotated[Sequence[Natural], Len(1)],
    Expected("auto, a count, or a list such as [0,1]"),
]
# Not 16-true: float16 loses the squares of small gradients, and nothing is learnt. The last four are Lightning's short
# names.
Precision = Annotated[
    Literal["auto", "32-true", "64-true", "bf16-true", "bf16-mixed", "16-mixed", "32", "64", "bf16", "16"],
    Expected("auto, 32-true, 64-true, bf16-true, bf16-mixed or 16-mixed"),
]

_LONG = 60  # characters of a value in a message, at most

Made = TypeVar("Made", bound=Callable[..., Any])


def checked(made: Made) -> Made:
    """A class, or a function that makes an object, whose arguments are what their annotations say: 1e3 and NumPy's 3
    are whole numbers of Python's.

    A call raises UserError where one is not, under the key that the command line has for it. An annotation that says
    nothing of values, such as a class, is not looked at.
    """
    call = made.__init__ if isinstance(made, type) else made
    signature = inspect.signature(call)

    @functools.cache
    def kinds() -> dict[str, Kind]:
        found = {name: kind_of(annotation) for name, annotation in get_type_hints(call, include_extras=True).items()}
        return {name: kind for name, kind in found.items() if kind is not None and name != "return"}

    @functools.wraps(call)
    def checking(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        for name in given.arguments.keys() & kinds().keys():
            value, of = given.arguments[name], type(args[0]) if isinstance(made, type) else made
            given.arguments[name] = _read(of, name, value, kinds()[name])
        return call(*given.args, **given.kwargs)

    if not isinstance(made, type):
        return checking
    made.__init__ = checking
    return made


def _read(made: Callable[..., Any], name: str, value: Any, kind: Kind) -> Any:
    try:
        return kind.read(value)
    except ValueError:
        group = registered().get(f"{made.__module__}.{made.__qualname__}")
        key = f"{group}.{name}" if group else name
        raise UserError(f"{key}={_brief(value)}: expected {kind.words}") from None


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."


def _number(least: float = -math.inf, above: float = -math.inf) -> Callable[[Any], float]:
    def read(value):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        if not math.isfinite(value) or value < least or value <= above:
            raise ValueError
        return float(value)

    return read


def _fraction(value) -> float:
    if not 0 <= _number()(value) <= 1:
        raise ValueError
    return float(value)


def _number_or_infinity(value) -> float:
    infinite = str(value).lower() in ("inf", ".inf", "+inf", "+.inf")  # as the command line or YAML has it
    return math.inf if infinite else _number()(value)


def _whole(least: float = -math.inf) -> Callable[[Any], int]:
    number = _number(least)

    def read(value):
        if not number(value).is_integer():
            raise ValueError
        return int(value)  # 1e5 is a float to Hydra, and a whole number to whoever typed it

    return read


def _instance(cls: type) -> Callable[[Any], Any]:
    def read(value):
        if not isinstance(value, cls):
            raise ValueError
        return value

    return read


def _any_of(*classes: type) -> Callable[[Any], Any]:
    def read(value):
        if value is not None and (isinstance(value, bool) or not isinstance(value, classes)):
            raise ValueError
        return value

    return read


def _text(value) -> str:
    if value is None or isinstance(value, dict | list):
        raise ValueError
    return str(value)


def _matching(pattern: str) -> Callable[[Any], Any]:
    def read(value):
        if not re.fullmatch(pattern, str(value)):
            raise ValueError
        return value

    return read


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value):
        if isinstance(value, bool) or str(value) not in words:
            raise ValueError
        return str(value)

    return read


def _list_of(kind: Kind) -> Kind:
    def read(value):
        return [kind.read(item) for item in _instance(list)(value)]

    return Kind(f"a list such as [a,b], each {kind.words}", read)


def _betas(value) -> list[float]:
    first, second = (_number(least=0)(beta) for beta in _instance(list)(value))
    if max(first, second) >= 1:
        raise ValueError
    return [first, second]


def _times(value) -> str | list[float]:
    return value if isinstance(value, str) else _list_of(NUMBER).read(value)


def _range(value) -> str | list[float]:
    if value in ("container", "auto"):
        return value
    low, high = (NUMBER.read(limit) for limit in _instance(list)(value))
    if low >= high:
        raise ValueError
    return [low, high]


def _switch_or_auto(value) -> str | bool:
    if value not in ("auto", True, False) or (isinstance(value, int) and not isinstance(value, bool)):
        raise ValueError
    return value


def _or_null(kind: Kind) -> Kind:
    return Kind(f"{kind.words}, or null", lambda value: None if value is None else kind.read(value))


WHOLE = Kind("a whole number", _whole())
NATURAL = Kind("a whole number, 0 or more", _whole(least=0))
COUNT = Kind("a whole number, 1 or more", _whole(least=1))
NUMBER = Kind("a number", _number())
NUMBER_OR_INFINITY = Kind("a number, or inf", _number_or_infinity)
POSITIVE = Kind("a number above 0", _number(above=0))
FRACTION = Kind("a number, 0 to 1", _fraction)
SWITCH = Kind("true or false", _instance(bool))
TEXT = Kind("a text", _text)
ANYTHING = Kind("a value", lambda value: value)
DEVICES = Kind("auto, a count, or a list such as [0,1]", _matching(r"auto|-1|[1-9]\d*|\[\d+(, \d+)*\]"))
TIMES = Kind("a name such as trailing, or a list of times that ends with 0", _times)
VARIANCE = Kind("auto, fixed_small, fixed_large, learned, or a number from 0 to 1", _any_of(int, float, str))
# Not 16-true: float16 loses the squares of small gradients, and nothing is learnt. The last four are Lightning's short
# names.
PRECISION = Kind(
    "auto, 32-true, 64-true, bf16-true, bf16-mixed or 16-mixed",
    _one_of("auto", "32-true", "64-true", "bf16-true", "bf16-mixed", "16-mixed", "32", "64", "bf16", "16"),
)

WEIGHTS = Kind("ema, raw, the name of an average, or a width such as 0.08", _matching(r"[a-z_]+[\w.]*|0?\.\d+"))

_CADENCES = ("validate", "callbacks.preview", "checkpoints")

# Names whose default is null or a word, or whose number has a bound.
BY_NAME = {
    "seed": NATURAL,
    "kernels": Kind("auto, true or false", _switch_or_auto),
    "resume_mode": Kind("full or weights", _matching("full|weights")),
    "n": _or_null(COUNT),
    "batch_size": COUNT,
    "metric.n": _or_null(COUNT),
    "metric.steps": _or_null(COUNT),
    "keep": Kind("a count, all, or every:k", _matching(r"all|(every:)?[1-9]\d*")),
    "weights": WEIGHTS,
    "guidance.weights": _or_null(WEIGHTS),
    "size": _or_null(COUNT),
    "schedule": _or_null(Kind("linear or cosine", _matching("linear|cosine"))),
    "T": _or_null(COUNT),
    "heads": _or_null(COUNT),
    "head_width": _or_null(COUNT),
    "order": _or_null(Kind("heads_first or qkv_first", _matching("heads_first|qkv_first"))),
    "rescale_timesteps": _or_null(SWITCH),
    "to": Kind("diffusers, onnx or safetensors", _matching("diffusers|onnx|safetensors")),
    "network.heads": _or_null(COUNT),
    "network.head_width": _or_null(COUNT),
    "network.time_width": _or_null(COUNT),
    "schedule.betas": _list_of(POSITIVE),
    "sampler.steps": _or_null(COUNT),
    "sampler.times": TIMES,
    "sampler.variance": VARIANCE,
    **{f"callbacks.{name}.n": NATURAL for name in ("preview", "batch")},
    **{f"callbacks.{name}.keep": _or_null(COUNT) for name in ("preview", "predictions", "loss_curve")},
    "conditioning.label.drop": FRACTION,
    "conditioning.vector.drop": FRACTION,
    "guidance.interval": _list_of(NUMBER_OR_INFINITY),
    "guidance.step": _or_null(COUNT),
    "lr_schedule.steps": _or_null(COUNT),
    "dataset.batch_size": COUNT,
    "dataset.range": Kind("container, auto, or two numbers [low,high], low below high", _range),
    "dataset.shape": _or_null(_list_of(COUNT)),
    "dataset.split": Kind("hash, or permutation (of runs of format 0)", _matching("hash|permutation")),
    "dataset.val_images": _or_null(COUNT),
    **{f"space.{name}": _or_null(_list_of(NUMBER)) for name in ("mean", "std", "low", "high")},
    "checkpoints.keep": COUNT,
    "ema.half_life": _list_of(COUNT),
    "ema.snapshots": COUNT,
    "network.dropout": FRACTION,
    "network.widths": _list_of(COUNT),
    "optimizer.betas": Kind("a list of two numbers, each 0 or more and below 1", _betas),
    "optimizer.lr": POSITIVE,
    "optimizer.warmup_share": _or_null(FRACTION),
    "optimizer.warmup_steps": NATURAL,
    "task.t": _or_null(POSITIVE),
    "task.points": COUNT,
    "task.resamples": COUNT,
    "task.jump": COUNT,
    "steps": _list_of(COUNT),
    "trainer.max_steps": _or_null(COUNT),
    "trainer.max_minutes": _or_null(POSITIVE),
    "trainer.max_epochs": _or_null(COUNT),
    "trainer.gradient_clip": Kind("a number, 0 or more", _number(least=0)),
    "trainer.max_skipped": COUNT,
    "trainer.accumulate": COUNT,
    "trainer.precision": PRECISION,
    "trainer.log_every_n_steps": COUNT,
    "trainer.overfit_batches": NATURAL,
    "strategy.devices": DEVICES,
    "strategy.num_nodes": COUNT,
    **{f"{section}.every_n_steps": _or_null(COUNT) for section in _CADENCES},
    **{f"{section}.every_n_minutes": _or_null(POSITIVE) for section in _CADENCES},
    **{f"{section}.every_n_epochs": _or_null(COUNT) for section in _CADENCES},
    "logger.wandb.mode": Kind("auto, online or offline", _matching("auto|online|offline")),
}


def whole(name: str, value: Any, least: int) -> int:
    """`value` of the argument or key `name`, a whole number of Python's, NumPy's or torch's. Raises UserError for
    another or a smaller one."""
    number = whole_or_none(value)
    if number is None or number < least:
        raise UserError(f"{name}={value!r}: expected a whole number, {least} or more")
    return number


def whole_or_none(value: Any) -> int | None:
    """The same; None for what is no whole number."""
    try:
        return None if isinstance(value, bool) else int(operator.index(value))
    except TypeError:
        return None


def kind_by_name(name: str, default: Any) -> Kind:
    """The kind of values that the key `name` (dotted) takes, whose default is `default`."""
    for key in (name, re.sub(r"^callbacks\.\w+\.", "", name)):  # some have the keys of sampling
        if key in BY_NAME:
            return BY_NAME[key]
    if default is None or (isinstance(default, str) and "${" in default):
        return ANYTHING
    if isinstance(default, list):
        return _list_of(kind_by_name("", default[0] if default else None))
    if default == math.inf:
        return NUMBER_OR_INFINITY
    for cls, kind in (bool, SWITCH), (int, WHOLE), (float, NUMBER):
        if isinstance(default, cls):
            return kind
    return TEXT
