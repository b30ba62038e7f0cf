"""dataset.range: which values in the files become black and white, and the messages about it."""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from diffusion.data.decoding import Limits, Values
from diffusion.ground.errors import UserError

KEY = "dataset.range"
Range = str | Limits
"""container: 0 and the largest value of each file's type; auto: the smallest and the largest value of the whole set; or
these two as numbers."""

_LITTLE = 0.26  # of a type's range: 14-bit data in 16 bits use a quarter
_FEW = 128  # below this, the largest value is a number of labels, not rounded up to a power of two


class Seen(NamedTuple):
    """Statistics of the images whose type holds the values 0 to `top` (None: floats). outside: the number of images
    with values beyond the limits; least, largest: of all their values."""

    top: float | None
    images: int = 0
    outside: int = 0
    least: float = inf
    largest: float = -inf

    def updated(self, values: Values, limits: Limits | None) -> "Seen":
        outside = limits is not None and (values.least < limits[0] or values.largest > limits[1])
        least, largest = min(self.least, values.least), max(self.largest, values.largest)
        return Seen(self.top, self.images + 1, self.outside + outside, least, largest)


def found(values: Sequence[Values], path: str) -> Limits:
    """The limits that auto gives for images with these values. Raises UserError if they are undefined."""
    low, high = min(one.least for one in values), max(one.largest for one in values)
    if not low < high:
        why = f"all values are {low:g}" if low == high else "everything is transparent"
    elif len(tops := {one.top for one in values}) > 1:
        why = f"files are of different types, {' and '.join(sorted(map(_type, tops)))}"
    else:
        return low, high
    raise UserError(f"{path}: {KEY}=auto is undefined, since {why}: set {KEY}=[low,high], or fix the files")


def lines(given: Range, limits: Limits | None, seen: Sequence[Seen], images: int) -> list[str]:
    """Messages about the values in a set of `images` images. limits: the limits that `given` resolved to, None for
    container."""
    blank = images - sum(one.images for one in seen)
    messages = [f"{blank} of {images} images are fully transparent and become white"] if blank else []
    if limits is None:
        little = [one for one in seen if one.top and 0 < one.largest - one.least < _LITTLE * one.top]
        return messages + [_little_used(one) for one in little]
    if given == "auto":
        return [*messages, f"{KEY}=auto: {limits[0]:g} becomes black and {limits[1]:g} white"]
    if outside := sum(one.outside for one in seen):
        least, largest = min(one.least for one in seen), max(one.largest for one in seen)
        messages.append(f"{_key(limits)} clips {outside} of {images} images, with values from {least:g} to {largest:g}")
    if len(seen) > 1:
        messages.append(f"{_key(limits)} is applied to files of different types: {'; '.join(map(_files, seen))}")
    return messages


def _little_used(one: Seen) -> str:
    low, high = one.least, one.largest
    if low < high / 4:
        low, high = 0, high if high < _FEW else 2 ** int(high).bit_length() - 1
    return (
        f"{_files(one)}, but their values are only {one.least:g} to {one.largest:g}, so they are dark or flat: "
        f"set {_key((low, high))} or {KEY}=auto"
    )


def _files(one: Seen) -> str:
    return f"{one.images} images in files for {_type(one.top)}"


def _type(top: float | None) -> str:
    return "floats" if top is None else f"values from 0 to {top:g}"


def _key(limits: Limits) -> str:
    return f"{KEY}=[{limits[0]:g},{limits[1]:g}]"
