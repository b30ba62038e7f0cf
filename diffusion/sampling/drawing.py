"""Draws images into a folder of samples, with a grid and trajectories of them."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from diffusion.ground import images
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.sampling import grids
from diffusion.sampling.kept_states import kept_states
from diffusion.sampling.samples import Samples, read
from diffusion.sampling.section import Sampling

_STRIP = 8  # images and states in the strip
_FRAMES = 60  # of the GIF
_GIF = 600  # pixels: the width of the GIF, about
_MOVING = 8  # columns and rows of the GIF, at most


class Drawing:
    """Draws the images of `sampling` that are not in the folder yet, and pictures of all of them.

    keep: which states of the first images are shown, see `kept_states`. Raises UserError for invalid ones.
    """

    def __init__(self, model: LitDiffusion, sampling: Sampling, keep: int | str = 1, batch_size: int = 64):
        self.model, self.sampling, self.batch_size = model, sampling, batch_size
        self.kept = kept_states(keep, len(sampling.times(model)) - 1)

    def draw(self, samples: Samples, npz: bool = False) -> Path:
        """npz: also writes all images as one array. Returns the folder."""
        sampling = self.sampling
        sampling.notify_turns()
        start = time.perf_counter()
        if len(self.kept) > 1:
            self._draw_moving(samples)
        for index, states in self._batches([i for i in range(sampling.n) if not samples.picture(i).exists()]):
            samples.write(index, states[-1])
        seconds = time.perf_counter() - start
        pictures = samples.pictures()
        rows = grids.rows(len(pictures), sampling.conditions, sampling.task.columns)
        names = grids.titles(rows, sampling.conditions)
        images.write_png(
            samples.folder / "grid.png", grids.grid(rows, lambda row: read([pictures[i] for i in row]), names)
        )
        if npz or samples.npz.exists():
            samples.write_npz()
        samples.describe(n=len(pictures), seconds=round(seconds, 3))
        return samples.folder

    def _batches(self, index: Sequence[int], keep: Sequence[int] | None = None):
        if not index:
            return ()
        return self.sampling.batches(self.model, torch.tensor(index), keep=keep, batch_size=self.batch_size)

    def _draw_moving(self, samples: Samples) -> None:
        """Draws the first images with their trajectories: strip.png, one image per row and time to the right, and
        states.gif. Only the states that are shown are kept in memory."""
        strip, frames = ([self.kept[i] for i in images.evenly(len(self.kept), most)] for most in (_STRIP, _FRAMES))
        keep = sorted({*strip, *frames})
        columns = max(1, min(_MOVING, _GIF // self.model.shape[-1]))
        batches = []
        for part, states in self._batches(range(min(self.sampling.n, max(_STRIP, columns**2))), keep):
            batches.append(torch.stack([self.model.space.picture(state) for state in states]))
            samples.write(part, states[-1])
        states = torch.cat(batches, dim=1)
        images.write_png(samples.folder / "strip.png", images.strip(states[[keep.index(k) for k in strip], :_STRIP]))
        moving = states[[keep.index(k) for k in frames], : columns**2]
        images.write_gif(samples.folder / "states.gif", [images.grid(frame) for frame in moving])
