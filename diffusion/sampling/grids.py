"""Grids of samples: their layout and titles."""

from collections.abc import Callable, Sequence
from math import ceil, sqrt

import torch
from torch import Tensor

from diffusion.ground import images
from diffusion.sampling.conditions import Conditions

_MOST = 64  # images, or rows of conditions
_COLUMNS = 16  # images of one condition


def rows(n: int, conditions: Conditions, columns: int | None = None) -> list[range]:
    """The images of each row, of n: with `columns`, consecutive ones; else those of one condition; without conditions
    about a square."""
    turns = conditions.period
    if turns and not columns:
        return [range(n)[turn::turns][:_COLUMNS] for turn in range(min(turns, n, _MOST))]
    columns = columns or ceil(sqrt(min(n, _MOST)))
    shown = min(n, max(1, _MOST // columns) * columns)
    return [range(shown)[start : start + columns] for start in range(0, shown, columns)]


def titles(rows: Sequence[range], conditions: Conditions) -> list[str] | None:
    """The condition of each row as text; None without conditions."""
    return [*map(conditions.title, range(len(rows)))] if conditions.period else None


def grid(rows: Sequence[range], read: Callable[[range], Tensor], names: Sequence[str] | None = None) -> Tensor:
    """read: gives the images of a row, uint8 (k, C, H, W); names: titles of the rows. Returns uint8 (C, H', W')."""
    columns = len(rows[0])
    drawn = [read(row) for row in rows]
    for number, row in enumerate(drawn[:-1]):  # a row may have one image less than the first
        missing = row.new_full((columns - len(row), *row.shape[1:]), images.GREY)
        drawn[number] = torch.cat([row, missing])
    return images.grid(torch.cat(drawn), columns=columns, names=names)
