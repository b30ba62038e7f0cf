"""`python sample.py task=compare`: one picture of samplers and numbers of steps, from the same noise."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion import build, images, plots
from diffusion.bar import Bar
from diffusion.config import choice
from diffusion.errors import UserError
from diffusion.lit import LitDiffusion
from diffusion.samplers.base import Sampler


def draw(model: LitDiffusion, config: Mapping[str, Any], path: Path) -> Path:
    """Draws `n` images with each of `task.samplers` at each of `task.steps` into one picture at `path`; returns it."""
    if config["sampler"]:
        raise UserError("task=compare draws with several samplers: say task.samplers=[ddim,heun] instead of sampler=")
    rows = {name: choice("sampler", name) for name in config["task"]["samplers"]}
    steps = config["task"]["steps"]
    options = {"n": config["n"], "seed": config["seed"], "batch_size": config["batch_size"]}
    cells = [(name, build.instantiate({**rows[name], "steps": count})) for name in rows for count in steps]
    model.sample(1, sampler=cells[0][1], progress=False)  # the first of all would pay for what is set up once
    drawn = [(name, _cell(model, sampler, options)) for name, sampler in Bar(cells, desc="comparing", unit=" cell")]
    table = {name: [cell for row, cell in drawn if row == name] for name in rows}
    return plots.write_figure(path, plots.draw_table(table, columns=[f"{count} steps" for count in steps]))


def _cell(model: LitDiffusion, sampler: Sampler, options: Mapping[str, Any]) -> tuple[Tensor | None, str]:
    """A grid of images and the seconds they took; no grid where the schedule has too few steps for the sampler."""
    try:
        sampler.times(model.denoiser.schedule)
    except UserError:
        return None, ""
    start = time.perf_counter()
    drawn = model.sample(**options, sampler=sampler, progress=False)
    seconds = time.perf_counter() - start
    return images.grid(images.to_uint8(drawn)), f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
