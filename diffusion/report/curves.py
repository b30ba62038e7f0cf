"""The curves of runs: which metrics share a chart, and at which steps they are drawn."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from diffusion.report.run import Run, Series

POINTS = 20_000  # of all curves of a page
_LEAST = 50  # points of one curve
_QUARTER = re.compile(r"(.+)_t\dof\d+")
_LOSSES = ("train/loss", "val/loss")
_FIRST = ("loss", "val/loss", "train/loss")


class Curve(NamedTuple):
    """name: legend entry."""

    name: str
    series: Series
    dashed: bool = False


def of_one(run: Run) -> dict[str, list[Curve]]:
    """Title -> curves of one run: its losses together, those of the quarters of t together."""
    found: dict[str, list[Curve]] = {}
    for name, series in run.series.items():
        if series:
            quarter = _QUARTER.fullmatch(name)
            title = "loss" if name in _LOSSES else f"{quarter[1]} by quarters of t" if quarter else name
            found.setdefault(title, []).append(Curve(name, series))
    if floor := _floor(run):
        found["loss"].append(Curve("floor of the training images", floor, dashed=True))
    return _ordered(found)


def of_several(runs: Sequence[Run]) -> dict[str, list[Curve]]:
    """Title -> the curves of a metric, one per run that has it."""
    names = dict.fromkeys(name for run in runs for name in run.series)
    found = {name: [Curve(run.name, run.series[name]) for run in runs if run.series.get(name)] for name in names}
    return _ordered({name: curves for name, curves in found.items() if curves})


def _ordered(found: Mapping[str, list[Curve]]) -> dict[str, list[Curve]]:
    rank = {title: number for number, title in enumerate(_FIRST)}
    titles = sorted(found, key=lambda title: (rank.get(title, len(rank)), not title.startswith("val/"), title))
    return {title: found[title] for title in titles}


def _floor(run: Run) -> Series | None:
    """The smallest possible loss on the training images, as a horizontal line: val/loss minus val/excess."""
    loss, excess = run.series.get("val/loss"), run.series.get("val/excess")
    if not loss or not excess:
        return None
    level = loss.values[-1] - excess.values[-1]
    return Series([loss.steps[0], loss.steps[-1]], [level, level])


def drawn(charts: Mapping[str, list[Curve]]) -> list[dict[str, Any]]:
    """Plain data for the script of the page: titles, and the points of each curve, about `POINTS` in total."""
    count = sum(map(len, charts.values()))
    most = max(_LEAST, POINTS // max(count, 1))
    return [{"title": title, "curves": [_curve(each, most) for each in curves]} for title, curves in charts.items()]


def _curve(curve: Curve, most: int) -> dict[str, Any]:
    taken = _taken(len(curve.series), most)
    return {
        "name": curve.name,
        "dashed": curve.dashed,
        "x": [curve.series.steps[index] for index in taken],
        "y": [float(f"{curve.series.values[index]:.5g}") for index in taken],
    }


def _taken(count: int, most: int) -> Iterable[int]:
    """Evenly spaced indices, including the last."""
    every = -(-count // most)
    return range((count - 1) % every, count, every)


def longest(charts: Mapping[str, list[Curve]]) -> int:
    """The number of points of the longest curve."""
    return max((len(curve.series) for curves in charts.values() for curve in curves), default=0)
