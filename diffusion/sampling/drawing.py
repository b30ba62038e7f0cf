"""Images of one task and one sampler, drawn into a folder of samples, and the pictures that show them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import images, notices
from diffusion.lit import LitDiffusion
from diffusion.samples import Samples, read
from diffusion.sampling.conditions import Asked
from diffusion.sampling.states import kept_states
from diffusion.tasks.generate import Generate

_GRID = 64  # images in the grid
_COLUMNS = 16  # images of one class in the grid
_STRIP = 8  # images and states in the strip
_FRAMES = 60  # of the GIF
_GIF = 600  # pixels: the width of the GIF, about
_MOVING = 8  # columns and rows of the GIF, at most


class Drawing:
    """What `sample.py` does but for task=compare. model: with the sampler, clipping and guidance to use; config: `n`,
    `keep` and `npz` of conf/sample.yaml. Raises UserError for what the sampler cannot do.

    times: the times visited. unused: keys without an effect, and why. settings: of its own in samples.json.
    """

    settings: Mapping[str, Any] = {}

    def __init__(self, model: LitDiffusion, task: Generate, config: Mapping[str, Any]):
        self.model, self.task = model, task
        self.n, self.npz = config["n"], config["npz"]
        sampler, schedule = model.sampler, model.denoiser.schedule
        sampler.check(schedule, model.objective.learns_variance)
        self.times = task.times(sampler, schedule)
        self.kept = kept_states(config["keep"], len(self.times) - 1)
        self.unused = {**sampler.unused(), **task.unused(sampler)}

    def draw(self, samples: Samples, asked: Asked, seed: int, batch_size: int) -> Path:
        """Draws the images that are not in the folder yet. Row r of the task, often a single image, has turn
        r. Returns the folder."""
        if asked.period:
            rows = self.task.streams(torch.tensor(self.n - 1)).item() + 1
            notices.of_turns(asked.period, rows, self.n, asked.period * (self.task.columns or 1))
        start = time.perf_counter()
        options = {"asked": asked, "seed": seed, "batch_size": batch_size}
        if len(self.kept) > 1:
            self._draw_moving(samples, options)
        missing = [i for i in range(self.n) if not samples.picture(i).exists()]
        for index, states in self._batches(missing, **options):
            samples.write(index, states[-1])
        seconds = time.perf_counter() - start
        pictures = samples.pictures()
        images.write_png(samples.folder / "grid.png", self._grid(pictures, asked))
        if self.npz or samples.npz.exists():
            samples.write_npz()
        samples.describe(n=len(pictures), seconds=round(seconds, 3))
        return samples.folder

    def _batches(self, index, asked, **options):
        index = torch.tensor(index, dtype=torch.int64)
        condition = asked.condition(self.task.streams(index))
        return self.model.sample_batches(index, task=self.task, condition=condition, **options) if len(index) else ()

    def _draw_moving(self, samples: Samples, options: Mapping[str, Any]) -> None:
        """The first images with how they came about: strip.png, an image a row and time to the right, and states.gif.
        Of all the states only those that are shown are kept."""
        strip, frames = ([self.kept[i] for i in images.evenly(len(self.kept), most)] for most in (_STRIP, _FRAMES))
        keep = sorted({*strip, *frames})
        columns = max(1, min(_MOVING, _GIF // self.model.shape[-1]))
        index = range(min(self.n, max(_STRIP, columns**2)))
        batches = []
        for part, states in self._batches(index, keep=keep, **options):
            batches.append(torch.stack([self.model.space.picture(state) for state in states]))
            samples.write(part, states[-1])
        states = torch.cat(batches, dim=1)
        images.write_png(samples.folder / "strip.png", images.strip(states[[keep.index(k) for k in strip], :_STRIP]))
        moving = states[[keep.index(k) for k in frames], : columns**2]
        images.write_gif(samples.folder / "states.gif", [images.grid(frame) for frame in moving])

    def _grid(self, pictures: Sequence[Path], asked: Asked) -> Tensor:
        """The first images side by side; with a condition a row for each of its turns, its title in front."""
        columns, turns = self.task.columns, asked.period
        if columns:
            pictures = pictures[: max(1, _GRID // columns) * columns]
            rows = range(-(-len(pictures) // columns))
            return images.grid(read(pictures), columns=columns, names=[*map(asked.title, rows)] if turns else None)
        if not turns:
            return images.grid(read(pictures[:_GRID]))
        rows = [pictures[k::turns][:_COLUMNS] for k in range(min(turns, len(pictures), _GRID))]
        columns = len(rows[0])
        drawn = [read(row) for row in rows]
        cells = torch.full((len(rows), columns, *drawn[0].shape[1:]), images.GREY, dtype=torch.uint8)
        for cell, row in zip(cells, drawn, strict=True):  # the last rows may have an image less
            cell[: len(row)] = row
        return images.grid(cells.flatten(0, 1), columns, names=[*map(asked.title, range(len(rows)))])
