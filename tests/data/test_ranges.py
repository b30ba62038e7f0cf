"""The values of a set: limits found, and what is said of them."""

import math

import numpy as np
import pytest

from diffusion.data import ranges
from diffusion.data.decoding import Picture
from diffusion.data.ranges import Seen
from diffusion.errors import UserError


@pytest.mark.parametrize(
    "given", ["containers", "", None, 5, [1], [1, 2, 3], [2, 1], [1, 1], [0, math.inf], "01", ["a", "b"]]
)
def test_what_is_no_range_is_refused(given):
    with pytest.raises(UserError, match=r"dataset.range=.*: expected container, auto, or two numbers \[low,high\]"):
        ranges.check(given)


def test_auto_is_the_least_and_the_largest_of_all():
    assert ranges.found([(3, 90), (-1, 40), (math.inf, -math.inf)], "x") == (-1, 90)
    for nothing in [(7, 7), (7, 7)], [(math.inf, -math.inf)]:
        with pytest.raises(UserError, match=r"x: .*set dataset.range=\[low,high\]"):
            ranges.found(nothing, "x")


@pytest.mark.parametrize(
    ("top", "least", "largest", "wanted"),
    [
        (65535, 0, 9, "[0,9]"),
        (65535, 0, 255, "[0,255]"),
        (65535, 3, 980, "[0,1023]"),
        (65535, 0, 4080, "[0,4095]"),
        (65535, 0, 16383, "[0,16383]"),
        (65535, 30000, 31000, "[30000,31000]"),
        (255, 0, 1, "[0,1]"),
        (65535, 0, 40000, None),
        (255, 0, 200, None),
        (65535, 7, 7, None),
        (None, 0, 1, None),
    ],
)
def test_a_set_that_uses_little_of_its_type_is_told_so(top, least, largest, wanted):
    said = ranges.lines("container", None, [Seen(top, 40, 0, least, largest)])
    if wanted is None:
        assert not said
    else:
        [line] = said
        assert line.startswith(
            f"40 images in files for values from 0 to {top}, but they hold only {least} to {largest}"
        )
        assert line.endswith(f"set dataset.range={wanted} or dataset.range=auto")


def test_what_a_range_does_is_told():
    seen = Seen(65535)
    for least, largest in (0, 4000), (5, 5000), (10, 100):
        seen = seen.also(Picture(np.zeros(1), least, largest, 65535), (2, 4095))
    assert ranges.lines((2, 4095), (2, 4095), [seen]) == [
        "dataset.range=[2,4095] clips 2 of 3 images, whose values go from 0 to 5000"
    ]
    assert ranges.lines("auto", (0, 5000), [seen]) == ["dataset.range=auto: 0 becomes black and 5000 white"]
    _, mixed = ranges.lines((2, 4095), (2, 4095), [seen, Seen(255, 1, 0, 3, 4)])
    assert "different types: 3 images in files for values from 0 to 65535; 1 images in files for values" in mixed
