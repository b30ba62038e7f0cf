"""The one loop that every sampler walks, from x_T down to x_0."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.samplers.grid import trailing
from diffusion.schedule import Schedule


@dataclass
class Path:
    """What a solver has at hand on its way: the denoiser and fresh noise.

    denoise: (x_t, t, y) -> Prediction, with a `schedule`; noise: () -> (B, C, H, W), the next of each image's stream.
    """

    denoise: Callable[..., Prediction]
    noise: Callable[[], Tensor]
    y: Tensor | None = None
    nfe: int = 0

    @property
    def schedule(self) -> Schedule:
        return self.denoise.schedule

    def predict(self, x_t: Tensor, t: Tensor) -> Prediction:
        """One network evaluation."""
        self.nfe += 1
        return self.denoise(x_t, t, self.y)


@dataclass(frozen=True)
class Step:
    """A state of the reverse process: images x (B, C, H, W) at time t, after nfe network evaluations."""

    x: Tensor
    t: float
    nfe: int


class Sampler(ABC):
    """Hyperparameters of a solver; it keeps no state between calls. steps: how many, None for all T."""

    def __init__(self, steps: int | None = None):
        self.steps = steps

    def times(self, schedule: Schedule) -> Tensor:
        """The times visited, float64 (steps + 1,), from T down to 0."""
        return trailing(schedule, self.steps)

    def trajectory(
        self, denoise: Callable[..., Prediction], x_T: Tensor, noise: Callable[[], Tensor], y: Tensor | None = None
    ) -> Iterator[Step]:
        """The states of the reverse process: x_T first, x_0 last, steps + 1 of them.

        x_T: (B, C, H, W), standard normal. denoise, noise: as in `Path`. y: int64 (B,) labels or None.
        """
        path = Path(denoise, noise, y)
        times = self.times(path.schedule)
        x = x_T
        yield Step(x, times[0].item(), 0)
        for t, s in pairwise(times):
            x = self.step(path, x, t, s)
            yield Step(x, s.item(), path.nfe)

    @abstractmethod
    def step(self, path: Path, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """x_s from x_t, s < t. t, s: scalar or (B,): images of one batch may be at different times."""
