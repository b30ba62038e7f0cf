"""Heun steps; the error of few of them is in test_defaults.py."""

import pytest

from diffusion import schedule
from diffusion.ground.errors import Notice
from diffusion.runs import build
from diffusion.runs.groups import choice


@pytest.mark.parametrize("steps", [1, 5, 6, None])
def test_heun_names_a_better_sampler_below_10_evaluations(steps, recwarn):
    build.instantiate({**choice("sampler", "heun"), "steps": steps}).check(schedule.linear(1000))
    if steps in (6, None):
        assert not recwarn.list
    else:
        line = str(recwarn.pop(Notice).message)
        assert f"{steps} steps are {2 * steps - 1} network evaluations" in line
        assert line.endswith(f"sampler=dpm_solver_pp sampler.steps={2 * steps - 1}")
