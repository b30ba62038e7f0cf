"""Kinds of values: what an annotation takes, and the words for what it does not."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, TypedDict

import numpy as np
import pytest
import torch
from annotated_types import Ge, Gt, Interval, Le, Len, Lt, Predicate

from diffusion.config.value_parsers import AsTyped, Expected, Infinite, Matches, kind_like, kind_of

Precision = Literal["auto", "32-true", "32"]
Section = TypedDict("Section", {"a": int})  # noqa: UP013
ITEMS = "a list such as [a,b], each a whole number"

WORDS = [
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number"),
    (str, "a text"),
    (Path, "a path"),
    (str | Path, "a path"),
    (Path | None, "a path, or null"),
    (Any, "a value"),
    (
        Optional[int],  # noqa: UP045
        "a whole number, or null",
    ),
    (Annotated[int, Ge(1)], "a whole number, 1 or more"),
    (Annotated[int, Ge(1)] | None, "a whole number, 1 or more, or null"),
    (Annotated[int | None, Ge(1)], "a whole number, 1 or more, or null"),
    (Annotated[float, Gt(0)], "a number above 0"),
    (Annotated[float, Le(1)], "a number, at most 1"),
    (Annotated[float, Lt(1)], "a number, below 1"),
    (Annotated[float, Interval(ge=0, le=1)], "a number, 0 to 1"),
    (Annotated[float, Interval(gt=0, le=1)], "a number above 0 and at most 1"),
    (Annotated[float, Ge(0), Lt(1)], "a number, 0 or more and below 1"),
    (Annotated[float, Infinite()], "a number, or inf"),
    (Literal["auto", "online", "offline"], "auto, online or offline"),
    (Literal[1, 2, 3], "1, 2 or 3"),
    (Literal["auto"] | bool, "auto, true or false"),
    (Literal["auto", "learned"] | Annotated[float, Ge(0)], "auto, learned, or a number, 0 or more"),
    (Sequence[int], ITEMS),
    (list[int], ITEMS),
    (tuple[int, ...], ITEMS),
    (Annotated[Sequence[int], Len(2)], f"{ITEMS}, at least 2 of them"),
    (tuple[float, float], "a list of 2, each a number"),
    (tuple[str, float], "a list of 2, a text and a number"),
    (str | Sequence[float], "a text or a list such as [a,b], each a number"),
    (Annotated[str, Matches("a+", "some a")], "some a"),
    (Annotated[str | float, Expected("a name, or a width")], "a name, or a width"),
    (Section, "a section"),
    (Mapping[str, Any] | None, "a section, or null"),
]


@pytest.mark.parametrize(("annotation", "description"), WORDS, ids=str)
def test_descriptions(annotation, description):
    assert kind_of(annotation).description == description


@pytest.mark.parametrize(
    ("annotation", "value", "read"),
    [
        (int, 1e5, 100_000),
        (int, 2**80, 2**80),
        (int, np.int64(3), 3),
        (float, 2, 2.0),
        (float, torch.tensor(0.5), 0.5),
        (float, np.float32(0.5), 0.5),
        (str, 7, "7"),
        (Annotated[float, Infinite(), Ge(0)], "inf", math.inf),
        (Annotated[float, Infinite()], math.inf, math.inf),
        (Literal["32", "auto"], 32, "32"),
        (Literal["auto"] | bool, True, True),
        (Literal[1, 2], 2, 2),
        (Literal["auto"] | float, 0, 0.0),
        (int | None, None, None),
        (tuple[float, float], (1, 2), (1.0, 2.0)),
        (Sequence[str], [1, "a"], ["1", "a"]),
        (str | Sequence[float], "trailing", "trailing"),
        (str | Sequence[float], [1000, 0], [1000.0, 0.0]),
        (torch.Tensor | Sequence[float], [1], [1.0]),
        (Annotated[str | float, Expected("x")], 0.5, 0.5),
        (Path, "a,b=c", "a,b=c"),
        (Any, {"a": 1}, {"a": 1}),
    ],
)
def test_what_is_read(annotation, value, read):
    found = kind_of(annotation).read(value)
    assert found == read
    assert type(found) is type(read)


def test_a_class_in_a_union_is_taken_and_not_spoken_of():
    x = torch.zeros(2)
    kind = kind_of(torch.Tensor | Sequence[float])
    assert kind.read(x) is x
    assert kind.description == "a list such as [a,b], each a number"


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (bool, 1),
        (int, True),
        (int, 1.5),
        (int, "3"),
        (int, None),
        (int, 10**400),
        (float, math.nan),
        (float, math.inf),
        (float, torch.zeros(2)),
        (str, None),
        (str, ["a"]),
        (str | Sequence[float], 5),
        (str | Sequence[float], ["a"]),
        (Annotated[int, Ge(1)], 0),
        (Annotated[int, Ge(1)] | None, 0),
        (Annotated[float, Gt(0)], 0),
        (Annotated[float, Interval(ge=0, le=1)], 1.5),
        (Annotated[float, Infinite(), Ge(0)], -1),
        (Literal["auto"], "Auto"),
        (Literal["auto"] | bool, 1),
        (Literal[1, 2], True),
        (tuple[float, float], [1]),
        (Sequence[int], "12"),
        (Annotated[Sequence[int], Len(1)], []),
        (Annotated[str, Matches("a+", "some a")], "aab"),
        (Annotated[tuple[float, float], Predicate(lambda pair: pair[0] < pair[1])], [2, 1]),
        (Section, 3),
        (Path, None),
    ],
)
def test_invalid_text_is_rejected(annotation, value):
    with pytest.raises(ValueError):  # noqa: PT011
        kind_of(annotation).read(value)


def test_how_a_value_is_taken_from_the_command_line():
    assert kind_of(str | Path).literal
    assert kind_of(Path | None).literal
    assert kind_of(str | None).taken == "text"
    assert kind_of(Annotated[str, AsTyped()] | None).taken == "raw"
    assert kind_of(str | float).taken == kind_of(Literal["a"] | None).taken == kind_of(int).taken == "parsed"


def test_the_allowed_choices():
    assert kind_of(Precision | None).options == ("auto", "32-true", "32")
    assert kind_of(Literal["auto"] | bool).options == ("auto", "true", "false")


@pytest.mark.parametrize(
    "annotation", [torch.Tensor, torch.Tensor | None, Sequence[torch.Tensor], type, "int", object()]
)
def test_what_is_not_understood(annotation):
    assert kind_of(annotation) is None


@pytest.mark.parametrize(
    ("default", "description"),
    [
        (True, "true or false"),
        (1, "a whole number"),
        (1.0, "a number"),
        (math.inf, "a number, or inf"),
        ("a", "a text"),
        (None, "a value"),
        ("${seed}", "a value"),
        ([1], ITEMS),
        ([], "a list such as [a,b], each a value"),
    ],
)
def test_the_type_of_a_default_is_described(default, description):
    assert kind_like(default).description == description
