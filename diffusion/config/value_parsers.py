"""Annotation of a parameter -> the kind of its values: how they are read, and the message for invalid ones."""

import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, is_typeddict

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, MaxLen, MinLen, Predicate

# How a value is read from the command line: as Hydra parsed it; the same, but a number stays the typed text (007 stays
# 007); the typed text, with commas between the values of a sweep; the typed text, including commas; a list of such
# texts.
PARSED, TEXT, RAW, LITERAL, LITERALS = "parsed", "text", "raw", "literal", "literals"


class Kind(NamedTuple):
    """A kind of value: `read` converts the result of Hydra's parser, or raises ValueError; `description` is for
    messages.

    taken: one of the five above. options: the values to choose from, if it is a choice. bare: whether its key may be
    left out on the command line.
    """

    description: str
    read: Callable[[Any], Any]
    taken: str = PARSED
    options: tuple[str, ...] = ()
    bare: bool = False

    @property
    def literal(self) -> bool:
        """Whether the text from the shell is not parsed: a path."""
        return self.taken == LITERAL

    @property
    def null(self) -> bool:
        """Whether null is one of its values."""
        try:
            return self.read(None) is None
        except ValueError:
            return False


@dataclass(frozen=True)
class Matches:
    """In `Annotated[str, Matches(...)]`: the whole text matches a regular expression; `description` is for messages."""

    pattern: str
    description: str


@dataclass(frozen=True)
class Expected:
    """In `Annotated[...]`: the description for messages, instead of the one derived from the types."""

    description: str


@dataclass(frozen=True)
class Infinite:
    """In `Annotated[float, Infinite()]`: inf is one of the numbers."""


@dataclass(frozen=True)
class AsTyped:
    """In `Annotated[str, AsTyped()]`: the text of the command line, which is not parsed."""


@dataclass(frozen=True)
class Bare:
    """In `Annotated[Sequence[File], Bare()]`: its items may be given on the command line without the key. At most one
    key of a command."""


@dataclass(frozen=True)
class Of:
    """In `Annotated[Node, Of("module.Class")]`: the section has the keys that this constructor takes."""

    target: str


def kind_of(annotation: Any) -> Kind | None:
    """The kind of values of an annotation; None if it is not supported, such as a class.

    Supported are bool, int, float, str, Path, None, Any, Literal, unions, lists (Sequence, list, tuple), sections
    (Mapping, dict, TypedDict), and in `Annotated` the bounds of `annotated_types` and the classes above.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _narrowed(arguments[0], _flat(arguments[1:]))
    if origin is Literal:
        return _choice(arguments)
    if origin in (Union, UnionType):
        return _union(arguments)
    if (origin or annotation) in (list, tuple, Sequence, Iterable):
        return _list(arguments, fixed=origin is tuple and ... not in arguments)
    if (origin or annotation) in (dict, Mapping) or is_typeddict(annotation):
        return Kind("a section", _instance(Mapping))
    return _PLAIN.get(annotation) if isinstance(annotation, type) or annotation in (None, Any) else None


def read_as(annotation: Any, value: Any) -> Any:
    """`value` as the kind of an annotation reads it. Raises ValueError for another value, or an unknown annotation."""
    if (kind := kind_of(annotation)) is None:
        raise ValueError(f"{annotation}: not a supported annotation")
    return kind.read(value)


def kind_like(default: Any) -> Kind:
    """The kind of a key of which only the default is known."""
    if isinstance(default, list):
        found = _list((_like(default[0]) if default else Any,), fixed=False)
    else:
        found = kind_of(_like(default))
    assert found is not None  # `_like` yields plain types only
    return found


def _like(default: Any) -> Any:
    if default is None or (isinstance(default, str) and "${" in default):
        return Any
    if default == math.inf:
        return Annotated[float, Infinite()]
    return next((cls for cls in (bool, int, float) if isinstance(default, cls)), str)


def _instance(cls: type | tuple[type, ...]) -> Callable[[Any], Any]:
    def read(value):
        if not isinstance(value, cls):
            raise ValueError
        return value

    return read


def _number(value: Any) -> float:
    """Of Python, NumPy or torch."""
    if isinstance(value, bool | str | bytes):
        raise ValueError
    try:
        return float(value)
    except (TypeError, OverflowError, RuntimeError):
        raise ValueError from None


def _finite(value: Any) -> float:
    number = _number(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _finite_or_infinite(value: Any) -> float:
    infinite = str(value).lower() in ("inf", ".inf", "+inf", "+.inf")  # as the command line or YAML has it
    return math.inf if infinite else _finite(value)


def _whole(value: Any) -> int:
    if not _finite(value).is_integer():
        raise ValueError
    try:
        return operator.index(value)
    except TypeError:
        return int(value)  # Hydra parses 1e5 as a float, but it is a whole number


def _text(value: Any) -> str:
    if value is None or isinstance(value, Mapping | list | tuple):
        raise ValueError
    return str(value)


_PLAIN = {
    bool: Kind("true or false", _instance(bool), options=("true", "false")),
    int: Kind("a whole number", _whole),
    float: Kind("a number", _finite),
    str: Kind("a text", _text, TEXT),
    Path: Kind("a path", _instance((str, os.PathLike)), LITERAL),
    None: Kind("null", _instance(NoneType)),
    NoneType: Kind("null", _instance(NoneType)),
    Any: Kind("a value", lambda value: value),
}


def _choice(values: Sequence[Any]) -> Kind:
    def read(value):
        for each in values:
            same = str(value) == each if isinstance(each, str) else value == each
            if same and isinstance(value, bool) == isinstance(each, bool):
                return each
        raise ValueError

    options = tuple(str(each).lower() if isinstance(each, bool) else str(each) for each in values)
    return Kind(_or(options), read, options=options)


def _or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _union(members: Sequence[Any]) -> Kind | None:
    """A value is read by the first member that accepts it. A class is accepted too, and not described."""
    if Path in members:  # a text is a path then
        members = [member for member in members if member is not str]
    kinds = [kind for member in members if member is not NoneType and (kind := kind_of(member)) is not None]
    if not kinds:
        return None
    kinds = [kind._replace(read=_instance(str)) if kind is _PLAIN[str] else kind for kind in kinds]
    classes = tuple(member for member in members if isinstance(member, type) and kind_of(member) is None)
    null = NoneType in members

    first = _first(kinds)

    def read(value):
        return value if (value is None and null) or isinstance(value, classes) else first(value)

    options = tuple(option for kind in kinds for option in kind.options)
    others = [kind.description for kind in kinds if not kind.options]
    description = f"{', '.join(options)}, or {_or(others)}" if options and others else _or(options or others)
    return Kind(f"{description}, or null" if null else description, read, _taken(kinds), options)


def one_of(kinds: Sequence[Kind]) -> Kind:
    """The union of some kinds: of a key that several constructors have."""
    several = list({kind.description: kind for kind in kinds}.values())
    if len(several) == 1:
        return several[0]
    return Kind("; or ".join(kind.description for kind in several), _first(several), _taken(several))


def _first(kinds: Sequence[Kind]) -> Callable[[Any], Any]:
    """Reads by the first that can."""

    def read(value):
        for kind in kinds:
            try:
                return kind.read(value)
            except ValueError:
                continue
        raise ValueError

    return read


def _taken(kinds: Sequence[Kind]) -> str:
    taken = {kind.taken for kind in kinds if not kind.options}
    return next((each for each in (LITERAL, RAW) if each in taken), TEXT if taken == {TEXT} else PARSED)


def _list(items: Sequence[Any], fixed: bool) -> Kind | None:
    """items: the annotation of all items; where there is a `fixed` number of them, of each."""
    annotations = items if fixed else items[:1] or (Any,)
    kinds = [kind for item in annotations if (kind := kind_of(item)) is not None]
    if len(kinds) < len(annotations):
        return None

    def read(value):
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise ValueError
        if fixed and len(value) != len(kinds):
            raise ValueError
        found = [kind.read(item) for kind, item in zip(kinds if fixed else kinds * len(value), value, strict=True)]
        return tuple(found) if isinstance(value, tuple) else found

    each = [kind.description for kind in kinds]
    if not fixed:
        taken = LITERALS if kinds[0].literal else PARSED
        return Kind(f"a list such as [a,b], each {each[0]}", read, taken)
    return Kind(f"a list of {len(each)}, {'each ' * (len({*each}) == 1)}{' and '.join(dict.fromkeys(each))}", read)


def _flat(metadata: Iterable[Any]) -> list[Any]:
    """Interval(gt=0, le=1) is Gt(0) and Le(1); Len is MinLen and MaxLen."""
    return [each for one in metadata for each in (one if isinstance(one, GroupedMetadata) else [one])]


def _narrowed(annotation: Any, metadata: Sequence[Any]) -> Kind | None:
    bounds = tuple(each for each in metadata if isinstance(each, _BOUNDS))
    if bounds and get_origin(annotation) in (Union, UnionType):  # of int | None they are of int
        members = get_args(annotation)
        annotation = Union[tuple(Annotated[(each, *bounds)] if each in (int, float) else each for each in members)]  # noqa: UP007
        metadata = [each for each in metadata if each not in bounds]
    kind = kind_of(annotation)
    if kind is None:
        return None
    if any(isinstance(each, Infinite) for each in metadata):
        kind = Kind("a number, or inf", _finite_or_infinite)
    checks = [check for each in metadata if (check := _check(each)) is not None]

    def read(value):
        found = kind.read(value)
        if not all(check(found) for check in checks):
            raise ValueError
        return found

    own = [each.description for each in metadata if isinstance(each, Matches | Expected)]
    description = own[-1] if own else kind.description + _bounds_text(metadata) + _length_text(metadata)
    typed = any(isinstance(each, AsTyped) for each in metadata)
    bare = any(isinstance(each, Bare) for each in metadata)
    return kind._replace(description=description, read=read, taken=RAW if typed else kind.taken, bare=bare)


_BOUNDS = (Ge, Gt, Le, Lt)


def _check(constraint: Any) -> Callable[[Any], bool] | None:
    match constraint:
        case Ge(least):
            return lambda value: value >= least
        case Gt(low):
            return lambda value: value > low
        case Le(most):
            return lambda value: value <= most
        case Lt(high):
            return lambda value: value < high
        case MinLen(count):
            return lambda value: len(value) >= count
        case MaxLen(count):
            return lambda value: len(value) <= count
        case Matches(pattern):
            return lambda value: re.fullmatch(pattern, str(value)) is not None
        case Predicate(func):
            return func
    return None


def _bounds_text(metadata: Sequence[Any]) -> str:
    """', 0 or more', ' above 0 and at most 1', ', 0 to 1', or nothing."""
    bounds = {type(each): getattr(each, type(each).__name__.lower()) for each in metadata if isinstance(each, _BOUNDS)}
    if bounds.keys() == {Ge, Le}:
        return f", {bounds[Ge]} to {bounds[Le]}"
    texts = {Ge: ", {} or more", Gt: " above {}", Le: "at most {}", Lt: "below {}"}
    low, high = ([texts[each].format(bounds[each]) for each in side if each in bounds] for side in ((Ge, Gt), (Le, Lt)))
    return "".join(low) + (f"{' and ' if low else ', '}{high[0]}" if high else "")


def _length_text(metadata: Sequence[Any]) -> str:
    lengths = {type(each): each for each in metadata}
    least, most = (
        getattr(lengths.get(cls), name, None) for cls, name in ((MinLen, "min_length"), (MaxLen, "max_length"))
    )
    if least is not None and least == most:
        return f", {least} of them"
    return f", at least {least} of them" * bool(least) + f", at most {most} of them" * bool(most)
