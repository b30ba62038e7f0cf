"""The sampling loop that all samplers share, from x_T to x_0."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from diffusion.conditioners.condition import PREVIOUS, Condition
from diffusion.config.value_types import Count, Times
from diffusion.denoiser import Denoise, Prediction
from diffusion.ground.brownian import BrownianPath
from diffusion.process import q_step
from diffusion.samplers.times import visit
from diffusion.schedule import Schedule, broadcast

Noise = Literal["independent", "brownian"]


@dataclass
class SolverState:
    """The state of a solver along a trajectory: the denoiser, fresh noise, and earlier predictions.

    noise: () -> (B, C, H, W), the next of each image's stream. path: of the noise of reverse steps; None: `noise`.
    condition: of the images, as requested. steps: of the whole trajectory; left: those remaining, including this one.
    nfe: network evaluations per image so far. history: the latest predictions, newest last. carry: any state that the
    solver keeps between steps.
    """

    denoise: Denoise
    noise: Callable[[], Tensor]
    path: BrownianPath | None = None
    condition: Condition | None = None
    steps: int = 1
    left: int = 1
    nfe: int = 0
    history: deque[Prediction] = field(default_factory=lambda: deque(maxlen=4))
    carry: Any = None

    @property
    def schedule(self) -> Schedule:
        return self.denoise.schedule

    def predict(self, x_t: Tensor, t: Tensor) -> Prediction:
        """Predicts and appends to the history; the next call passes this x_0 on for self-conditioning."""
        condition = self.condition
        if self.history:
            condition = (condition or Condition(len(x_t))).also(**{PREVIOUS: self.history[-1].x_0})
        self.history.append(self.denoise(x_t, t, condition))
        self.nfe += self.history[-1].nfe
        return self.history[-1]

    def reverse_noise(self, t: Tensor, s: Tensor) -> Tensor:
        """The standard normal noise of a stochastic step from t to s, (B, C, H, W); scalars where there is a path."""
        if self.path is None:
            return self.noise()
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.schedule(t), self.schedule(s)
        return self.path.increment(float((alpha_t / sigma_t) ** 2), float((alpha_s / sigma_s) ** 2))

    def back(self, x_s: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """x_t from x_s, s < t, by fresh noise; clears the history, which is of another x_t."""
        self.history.clear()
        self.carry = None
        self.path = self.path and self.path.again()
        return q_step(self.schedule, x_s, s, t, self.noise())


@dataclass(frozen=True)
class Step:
    """A state of the reverse process: images x (B, C, H, W) at time t, after nfe network evaluations."""

    x: Tensor
    t: float
    nfe: int


class Sampler(ABC):
    """Hyperparameters of a solver; it keeps no state between calls.

    steps: their number, None for all T. times: the times visited, see `grid.visit`.
    """

    beyond = True  # allows more steps than the schedule has, which needs continuous time
    evaluations = 1  # of the network, in a step
    draws_noise = True  # in its steps, so that images depend on the seed beyond x_T
    noise: Noise = "independent"  # in each step, or `brownian`: of one path per image

    def __init__(self, steps: Count | None = None, times: Times = "trailing"):
        self.steps = steps
        self.spacing = times

    def times(self, schedule: Schedule) -> Tensor:
        """The times visited, float64 (steps + 1,), down to 0."""
        return visit(schedule, self.spacing, self.steps, self.beyond)

    def check(self, schedule: Schedule, learns_variance: bool = False) -> None:
        """Raises UserError for hyperparameters that do not fit the schedule or the network; called before anything is
        written. learns_variance: whether the network predicts the variance of the reverse step."""
        self.times(schedule)

    def unused(self) -> dict[str, str]:
        """The keys of the command line that have no effect with these hyperparameters, and why."""
        return {}

    def trajectory(
        self,
        denoise: Denoise,
        x: Tensor,
        noise: Callable[[], Tensor],
        condition: Condition | None = None,
        times: Tensor | None = None,
        path: BrownianPath | None = None,
    ) -> Iterator[Step]:
        """The states of the reverse process, from x to x_0.

        x: (B, C, H, W), the state at the first of the times: standard normal at T. denoise, noise: as in `SolverState`.
        condition: of the images. times: override those of the sampler, down to 0; where they increase, noise is added
        (Eq. 2) and the solver restarts (RePaint). path: of a sampler with brownian noise.
        """
        times = self.times(denoise.schedule) if times is None else times
        solver = SolverState(denoise, noise, path, condition, steps=len(times) - 1)
        yield Step(x, times[0].item(), 0)
        for number, (t, s) in enumerate(pairwise(times)):
            solver.left = solver.steps - number
            x = self.step(solver, x, t, s) if s < t else solver.back(x, t, s)
            yield Step(x, s.item(), solver.nfe)

    @abstractmethod
    def step(self, solver: SolverState, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """x_s from x_t, s < t. t, s: scalar or (B,): images of one batch may be at different times."""


def combine(*terms: tuple[Tensor, Tensor]) -> Tensor:
    """The sum of scale * x over pairs (scale, x). scale: scalar or (B,), float64; x: (B, C, H, W)."""
    return reduce(torch.add, (broadcast(scale, x) * x for scale, x in terms))


def half_log_snr(alpha: Tensor, sigma: Tensor) -> Tensor:
    """lambda = log(alpha / sigma), the time in which DPM-Solver and UniPC step; infinite where sigma is 0."""
    return alpha.log() - sigma.log()
