"""Compare samplers and numbers of steps in one figure, from the same noise.

usage: python compare.py ckpt=RUN_FOLDER [OPTION] [GROUP=CHOICE] [KEY=VALUE] ...

  python compare.py ckpt=runs/mnist/first                six samplers at 5 to 1000 steps
  python compare.py ckpt=runs/mnist/first samplers=[ddim,unipc] steps=[10,20] n=9 seed=1
  python compare.py ckpt=runs/digits/labels y=[7,3] guidance.scale=3
  python compare.py ckpt=runs/mnist/first task=img2img task.image=photo.png
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from diffusion.config.plain import plain
from diffusion.config.registry import name_class
from diffusion.config.value_types import Count
from diffusion.evaluation import plots
from diffusion.ground.bar import Bar
from diffusion.ground.errors import Notice, UserError
from diffusion.ground.quiet import quiet
from diffusion.lit import notices
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs import build
from diffusion.runs.groups import choice
from diffusion.runs.open_model import Trained, TrainedKeys
from diffusion.samplers.base import Sampler
from diffusion.sampling import grids
from diffusion.sampling.samples import Samples
from diffusion.sampling.section import Sampling, SamplingKeys, refuse

LESS_MEMORY = "lower batch_size"
_SEVERAL = "compare draws with several samplers: set samplers=[ddim,heun] and steps=[10,20]"


class CompareKeys(SamplingKeys, TrainedKeys):
    """conf/compare.yaml."""

    samplers: Sequence[str]
    steps: Sequence[Count]


def run(composed: Annotated[DictConfig, CompareKeys]) -> Path:
    """Draws the comparison that the composed `conf/compare.yaml` describes. Returns the figure; raises UserError for
    user errors, before anything is written."""
    quiet()
    config = plain(composed)
    trained = Trained.of(config)
    model, steps = trained.model, _once("steps", config["steps"])
    nodes = {name: choice("sampler", name) for name in _once("samplers", config["samplers"])}
    samplers = {name: [_possible({**node, "steps": count}, model) for count in steps] for name, node in nodes.items()}
    possible = [sampler for row in samplers.values() for sampler in row if sampler is not None]
    if not possible:
        raise UserError(f"steps={steps}: none of the samplers supports these numbers")
    sampling = Sampling.of(
        config, model, ckpt=trained.ckpt, contents=trained.contents, given=config["given"], sampler=possible[0]
    )
    trained.contents.clear()  # the optimiser's state is large
    unused = _common([replace(sampling, sampler=sampler).unused(model) for sampler in possible])
    refuse(config["given"], {"sampler": _SEVERAL, **unused})
    notices.of_pictures(model.space.shape[0])
    for node in nodes.values():
        node["steps"] = steps
        name_class(node)
    settings = {**trained.settings(), **sampling.settings(unused), "samplers": nodes, "n": sampling.n}
    samples = Samples(trained.output(config["output"]), settings, model.space)
    with samples.writing():
        return _draw(samples, model, sampling, samplers, [f"{count} steps" for count in steps], config["batch_size"])


def _draw(
    samples: Samples,
    model: LitDiffusion,
    sampling: Sampling,
    samplers: Mapping[str, Sequence[Sampler | None]],
    columns: Sequence[str],
    batch_size: int,
) -> Path:
    """sampling: with the sampler of the first cell."""
    sampling.notify_turns()
    rows = grids.rows(sampling.n, sampling.conditions, sampling.task.columns)
    start = time.perf_counter()
    _cell(model, sampling, rows, batch_size)  # warm-up: excludes one-time setup from the timings
    with Bar(total=len(samplers) * len(columns), desc="comparing", unit=" cell") as bar:
        table = {}
        for name, row in samplers.items():
            table[name] = []
            for sampler in row:
                cell = None if sampler is None else replace(sampling, sampler=sampler)
                table[name].append((None, "not possible") if cell is None else _cell(model, cell, rows, batch_size))
                bar.update()
    figure = plots.draw_table(table, columns, grids.titles(rows, sampling.conditions))
    path = plots.write_figure(samples.folder / "compare.png", figure)
    samples.describe(seconds=round(time.perf_counter() - start, 3))
    return path


def _cell(model: LitDiffusion, sampling: Sampling, rows: Sequence[range], batch_size: int) -> tuple[Tensor, str]:
    """A grid of images and the seconds they took."""
    start = time.perf_counter()
    batches = sampling.batches(model, torch.arange(sampling.n), batch_size=batch_size, progress=False)
    drawn = model.space.picture(torch.cat([states[-1] for _, states in batches]))
    seconds = time.perf_counter() - start
    return grids.grid(rows, lambda row: drawn[[*row]]), f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _possible(node: Mapping[str, Any], model: LitDiffusion) -> Sampler | None:
    """The sampler of its config; None if it does not support its number of steps."""
    sampler = build.instantiate(node)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # the figure shows which sampler is better
        try:
            sampler.check(model.denoiser.schedule, model.objective.learns_variance)
        except UserError:
            return None
    return sampler


def _common(unused: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The keys without an effect in any cell, and the reason."""
    return {key: why for key, why in unused[0].items() if all(key in others for others in unused)}


def _once(key: str, values: Sequence[Any]) -> list[Any]:
    """The values of a non-empty list without duplicates. Raises UserError otherwise."""
    if not values or len({*values}) < len(values):
        raise UserError(f"{key}=[{','.join(map(str, values))}]: expected at least one, and no duplicates")
    return [*values]
