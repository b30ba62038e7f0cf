"""`python sample.py task=compare`: one picture of samplers and numbers of steps, from the same noise."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusion import build, images, notices, plots
from diffusion.bar import Bar
from diffusion.config import choice
from diffusion.errors import UserError
from diffusion.lit import LitDiffusion
from diffusion.samplers.base import Sampler
from diffusion.samples import Samples
from diffusion.sampling.conditions import Asked


class Comparison:
    """`n` images by each of `samplers`, choices of conf/sampler, with each number of `steps`, in one picture. model:
    with the clipping and guidance to use. Raises UserError where none of them can be drawn.

    times: all that are visited. unused: keys without an effect, and why. settings: its own in samples.json.
    """

    UNUSED: ClassVar[Mapping[str, str]] = {
        "sampler": "task=compare draws with several: say task.samplers=[ddim,heun] and task.steps=[10,20]",
        "keep": "task=compare draws one picture of last states",
        "npz": "task=compare draws one picture, no single images",
    }

    def __init__(self, samplers: Sequence[str], steps: Sequence[int], model: LitDiffusion, n: int):
        self.model, self.n = model, n
        self.unused = self.UNUSED
        self.steps = _once("task.steps", steps)
        nodes = {name: choice("sampler", name) for name in _once("task.samplers", samplers)}
        self.settings = {"samplers": {name: {**node, "steps": self.steps} for name, node in nodes.items()}, "n": n}
        self.rows = {
            name: [build.instantiate({**node, "steps": count}) for count in self.steps] for name, node in nodes.items()
        }
        times = [self._times(sampler) for row in self.rows.values() for sampler in row]
        if all(each is None for each in times):
            raise UserError(f"task.steps={self.steps}: none of task.samplers can take so many or so few")
        self.times = torch.cat([each for each in times if each is not None])

    def draw(self, samples: Samples, asked: Asked, seed: int, batch_size: int) -> Path:
        """Draws the picture. Image i of a cell has turn i. Returns its file."""
        if asked.period:
            notices.of_turns(asked.period, min(asked.period, self.n), self.n, asked.period)
        start = time.perf_counter()
        options = {
            "condition": asked.condition(torch.arange(self.n)),
            "seed": seed,
            "batch_size": batch_size,
            "progress": False,
        }
        possible = [sampler for row in self.rows.values() for sampler in row if self._times(sampler) is not None]
        self._cell(possible[0], options)  # the first of all pays for what is set up once
        with Bar(total=len(self.rows) * len(self.steps), desc="comparing", unit=" cell") as bar:
            table = {}
            for name, row in self.rows.items():
                table[name] = []
                for sampler in row:
                    table[name].append(self._cell(sampler, options))
                    bar.update()
        columns = [f"{count} steps" for count in self.steps]
        path = plots.write_figure(samples.folder / "compare.png", plots.draw_table(table, columns=columns))
        samples.describe(seconds=round(time.perf_counter() - start, 3))
        return path

    def _times(self, sampler: Sampler) -> Tensor | None:
        """The times it visits; None where it cannot take its number of steps."""
        schedule = self.model.denoiser.schedule
        try:
            sampler.check(schedule, self.model.objective.learns_variance)
        except UserError:
            return None
        return sampler.times(schedule)

    def _cell(self, sampler: Sampler, options: Mapping[str, Any]) -> tuple[Tensor | None, str]:
        """A grid of images and the seconds they took; no grid where the sampler cannot take its number of steps."""
        if self._times(sampler) is None:
            return None, "not possible"
        start = time.perf_counter()
        drawn = self.model.sample(self.n, sampler=sampler, **options)
        seconds = time.perf_counter() - start
        return images.grid(self.model.space.picture(drawn)), f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _once(key: str, values: Sequence[Any]) -> list[Any]:
    """The values of a list that holds each at most once. Raises UserError otherwise."""
    if not values or len({*values}) < len(values):
        raise UserError(f"{key}=[{','.join(map(str, values))}]: expected at least one, and each once")
    return [*values]
