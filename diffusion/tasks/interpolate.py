"""Interpolation between two seeds or two pictures, by spherical interpolation of their noise."""

import re
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from diffusion.config.value_parsers import Expected
from diffusion.config.value_types import File, Natural, Positive, checked
from diffusion.data.decoding import Limits
from diffusion.ground.errors import UserError
from diffusion.ground.random import Streams
from diffusion.process import q_sample
from diffusion.samplers.ddim import invert
from diffusion.samplers.times import from_time
from diffusion.schedule import broadcast, precise
from diffusion.spaces.base import Space
from diffusion.tasks import image_files
from diffusion.tasks.generate import Generate

End = Annotated[Natural | File, Expected("a seed, a whole number, 0 or more, or the file of a picture")]


def slerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Spherical interpolation from a (weight 0) to b (1), each (B, ...); weight: (B,)."""
    cosine = torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1)).clamp(-1, 1)
    angle = precise(cosine).arccos().clamp(min=1e-6)  # at 0 it is the straight line
    of_a, of_b = torch.sin((1 - weight) * angle) / torch.sin(angle), torch.sin(weight * angle) / torch.sin(angle)
    return broadcast(of_a, a) * a + broadcast(of_b, b) * b


@checked
class Interpolate(Generate):
    """Rows of `points` images from `start` to `end`, each a seed or the file of a picture.

    t = None interpolates at T: row r uses the noise of image r for a seed, and the noise found by DDIM inversion for a
    picture, so that a deterministic sampler reproduces both ends. A time t (in steps) interpolates both pictures
    diffused to t with the same noise (Ho et al. 2020, Figure 8). The images of a row share the noise of the steps. The
    default is one row; with seeds, each row has different ends. The last row may be shorter.
    """

    usual_sampler = "ddim"  # deterministic: reproduces the pictures

    def __init__(
        self,
        start: End,
        end: End,
        points: Annotated[int, Ge(2)],
        t: Positive | None,
        space: Space,
        limits: Limits | None = None,
    ):
        super().__init__(space, limits)
        self.ends = [_end("task.start", start, space, limits), _end("task.end", end, space, limits)]
        if t is not None and not all(isinstance(end, Tensor) for end in self.ends):
            raise UserError(f"task.t={t:g}: only pictures are diffused up to t, but an end is a seed; use task.t=null")
        self.columns = self.usual_n = self.points = points
        self.t = t

    def times(self, sampler, schedule) -> Tensor:
        times = super().times(sampler, schedule)
        return times if self.t is None else from_time(times, self.t, schedule.T)

    def unused(self, sampler) -> dict[str, str]:
        if self.t is not None or sampler.draws_noise:
            return {}
        return {"seed": "task.start and task.end set the noise, and the sampler draws none"}

    def streams(self, index: Tensor) -> Tensor:
        return index // self.points

    def start(self, denoise, times, index, noise, condition=None) -> Tensor:
        weight = index % self.points / (self.points - 1)
        shared = noise()

        def at_first_time(end: int | Tensor) -> Tensor:
            if isinstance(end, int):
                return Streams(end, "sample", self.streams(index), shared.shape[1:], shared.device).normal()
            if self.t is not None:
                return q_sample(denoise.schedule, end.to(shared), times[0], shared)
            x_0 = end.to(shared)  # without a condition one inversion serves the whole row
            return invert(denoise, x_0 if condition is None else x_0.expand_as(shared), times, condition)

        a, b = map(at_first_time, self.ends)
        return slerp(a, b, weight.to(shared.device))


def _end(key: str, given: str | int | Path, space: Space, limits: Limits | None) -> int | Tensor:
    text = str(given)
    if re.fullmatch(r"-\d+", text):
        raise UserError(f"{key}={text}: expected a seed, a whole number, 0 or more, or the file of a picture")
    return int(text) if text.isdigit() else image_files.read(key, text, space, limits)
