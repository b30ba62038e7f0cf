"""The curves of a report."""

import pytest

from diffusion.report import curves
from diffusion.report.run import runs


def test_the_floor_is_a_level_line(run):
    with open(run / "metrics.csv") as file:
        head, *rows = file.read().splitlines()
    (run / "metrics.csv").write_text("\n".join([f"{head},val/excess", *(f"{row},0.01" for row in rows)]))
    [found] = runs([run])
    floor = curves.of_one(found)["loss"][-1]
    assert floor.dashed
    assert floor.series.values == pytest.approx([0.1, 0.1])
    assert floor.series.steps == [50, 300]


def test_a_long_curve_is_drawn_by_some_of_its_points(run, monkeypatch):
    monkeypatch.setattr(curves, "POINTS", 0)
    monkeypatch.setattr(curves, "_LEAST", 4)
    [found] = runs([run])
    chart = curves.drawn(curves.of_one(found))[0]
    assert chart["curves"][0]["x"] == [100, 200, 300]
