"""The vocabulary of annotations for the values of config keys and Python arguments, and their validation.

`Count` in a constructor is the bound of `KEY=VALUE` on the command line, in a yaml and in Python.
"""

import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_type_hints

from annotated_types import Ge, Gt, Interval, Len, Predicate

from diffusion.config.registry import registered
from diffusion.config.value_parsers import AsTyped, Expected, Infinite, Kind, Matches, kind_of
from diffusion.ground.errors import UserError

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
"""A path. The command line does not parse it."""
Name = Annotated[str | Path, Expected("a name")]
"""A name of a file, not parsed either."""
Node = Mapping[str, Any]
"""A section with a `_target_`, whose constructor defines its keys."""
Verbatim = Annotated[str, AsTyped()]
"""A text that is not parsed, such as the rows of a condition, which its conditioner reads."""

Kernels = Literal["auto", "off"]
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
# Not 16-true: float16 loses the squares of small gradients, so the network does not learn. The last four are
# short names of Lightning.
Precision = Annotated[
    Literal["auto", "32-true", "64-true", "bf16-true", "bf16-mixed", "16-mixed", "32", "64", "bf16", "16"],
    Expected("auto, 32-true, 64-true, bf16-true, bf16-mixed or 16-mixed"),
]

_LONG = 60  # characters of a value in a message, at most

Made = TypeVar("Made", bound=Callable[..., Any])


def checked(made: Made) -> Made:
    """Decorates a class, or a function that makes an object, to convert its arguments to their annotated kinds: 1e3 and
    NumPy's 3 become Python integers.

    A call raises UserError for an invalid argument, with its key on the command line. Annotations that define no kind
    of value, such as a class, are ignored.
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
        return cast("Made", checking)
    setattr(made, "__init__", checking)  # noqa: B010 (types have no assignable __init__)
    return cast("Made", made)


def _read(made: Callable[..., Any], name: str, value: Any, kind: Kind) -> Any:
    try:
        return kind.read(value)
    except ValueError:
        group = registered().get(f"{made.__module__}.{made.__qualname__}")
        key = f"{group}.{name}" if group else name
        raise UserError(f"{key}={_brief(value)}: expected {kind.description}") from None


def _brief(value: Any) -> str:
    text = repr(value)  # '5' is not 5
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."


def whole(name: str, value: Any, least: int) -> int:
    """`value` of the argument or key `name`, a whole number of Python, NumPy or torch. Raises UserError if it is not,
    or is less than `least`."""
    number = whole_or_none(value)
    if number is None or number < least:
        raise UserError(f"{name}={value!r}: expected a whole number, {least} or more")
    return number


def whole_or_none(value: Any) -> int | None:
    """The same; None for a value that is not a whole number."""
    try:
        return None if isinstance(value, bool) else int(operator.index(value))
    except TypeError:
        return None
