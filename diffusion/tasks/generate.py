"""Draws images with a denoiser and a sampler, in batches: used by every command and callback.

A task sets the start of the trajectory and its constraints. `Generate` starts from noise; other tasks derive from it.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import whole_or_none
from diffusion.data.decoding import Limits
from diffusion.denoiser import Denoise
from diffusion.ground.bar import Bar
from diffusion.ground.brownian import BrownianPath
from diffusion.ground.errors import UserError
from diffusion.ground.random import Streams
from diffusion.samplers.base import Sampler
from diffusion.schedule import Schedule
from diffusion.spaces.base import Space
from diffusion.spaces.pixels import Pixels


class Generate:
    """From pure noise: image i of a seed. Other tasks override one or more of these methods.

    space: the model's. limits: the values that map to black and white in a picture's file, as in training; None: those
    of the file type.
    """

    columns: int | None = None  # of the grid; None is about square
    usual_n = 64  # the default number of images
    usual_sampler: str | None = None  # the default, a choice of conf/sampler; None: the model's own

    def __init__(self, space: Space, limits: Limits | None = None):
        self.space, self.limits = space, limits

    def times(self, sampler: Sampler, schedule: Schedule) -> Tensor:
        """The times to visit, float64 (steps + 1,), down to 0."""
        return sampler.times(schedule)

    def unused(self, sampler: Sampler) -> dict[str, str]:
        """The keys of the command line that have no effect with the other values, and why."""
        return {}

    def streams(self, index: Tensor) -> Tensor:
        """The noise stream of each image, which is also its index into the conditions, int64 (B,)."""
        return index

    def start(
        self,
        denoise: Denoise,
        times: Tensor,
        index: Tensor,
        noise: Callable[[], Tensor],
        condition: Condition | None = None,
    ) -> Tensor:
        """The images (B, C, H, W) at times[0]."""
        return noise()

    def wrap(self, denoise: Denoise) -> Denoise:
        """The denoiser to sample with."""
        return denoise


@torch.no_grad()  # in which a wrapper around the denoiser may enable gradients
def generate(
    denoise: Denoise,
    sampler: Sampler,
    shape: Sequence[int],
    index: Tensor,
    seed: int,
    *,
    task: Generate | None = None,
    purpose: str = "sample",
    condition: Condition | None = None,
    batch_size: int = 64,
    keep: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draws the images `index` of a seed. Image i is always the same, whatever the batch size.

    shape: (C, H, W) of one image; index: int64 (n,); condition: of those n images; keep: the states to keep, increasing
    from 0 (x_T) or more to that of x_0; None is x_0 alone. task: None is `Generate`.
    Yields per batch its indices (B,) and the kept states (kept, B, C, H, W), float32 on the CPU, x_0 last.
    """
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: expected at least 1")
    task = task or Generate(Pixels(shape))
    denoise = task.wrap(denoise)
    times = task.times(sampler, denoise.schedule)
    steps = len(times) - 1
    kept = _kept(keep, steps)
    starts = range(0, len(index), batch_size)
    with Bar(total=steps * len(starts), desc="sampling", unit=" step", disable=not progress) as bar:
        for start in starts:
            chosen = slice(start, start + batch_size)
            streams = task.streams(index[chosen])
            noise = Streams(seed, purpose, streams, shape, device).normal
            path = BrownianPath(seed, purpose, streams, shape, device) if sampler.noise == "brownian" else None
            asked = None if condition is None else condition.rows(chosen).to(device)
            x = task.start(denoise, times, index[chosen], noise, asked)
            states = torch.empty(len(kept), *x.shape)
            for number, state in enumerate(sampler.trajectory(denoise, x, noise, asked, times, path)):
                if number in kept:
                    states[kept.index(number)] = state.x
                bar.update(number > 0)
            yield index[chosen], states


def _kept(keep: Sequence[int] | None, steps: int) -> list[int]:
    if keep is None:
        return [steps]
    given = [whole_or_none(number) for number in keep] if isinstance(keep, Sequence) else []
    numbers = [number for number in given if number is not None]
    rises = bool(numbers) and sorted({*numbers}) == numbers and numbers[0] >= 0 and numbers[-1] == steps
    if not rises or len(numbers) < len(given):
        raise UserError(f"keep={keep!r}: expected increasing numbers of states, from 0 or more to {steps}")
    return numbers
