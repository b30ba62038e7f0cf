"""Ancestral sampling: Algorithm 2 of Ho et al. 2020, between any two times s < t."""

from typing import Literal

from torch import Tensor

from diffusion.config.value_types import Count, Fraction, Times, checked
from diffusion.ground.errors import UserError
from diffusion.process import q_posterior, reverse_variance
from diffusion.samplers.base import Noise, Sampler, SolverState
from diffusion.schedule import Schedule

_MIX: dict[str, float | None] = {"auto": None, "learned": None, "fixed_small": 0.0, "fixed_large": 1.0}
_NOT_LEARNED = "sampler.variance=learned: this network predicts no variance; use fixed_small"


@checked
class DDPM(Sampler):
    """x_s = mean of q(x_s | x_t, x_0) + posterior_std z, with the network's x_0.

    variance: `fixed_small`, of the posterior; `fixed_large`, beta_t; a number in 0..1, interpolates their logarithms;
    `learned`, by the network's extra channels (Nichol & Dhariwal 2021, Eq. 15); `auto`, learned if the network has
    these channels, else fixed_small. noise: `brownian` is that of one path per image, so that
    one seed gives about the same image at any number of steps.
    """

    beyond = False

    def __init__(
        self,
        steps: Count | None = None,
        times: Times = "trailing",
        variance: Literal["auto", "fixed_small", "fixed_large", "learned"] | Fraction = "auto",
        noise: Noise = "independent",
    ):
        super().__init__(steps, times)
        self.mix = _MIX[variance] if isinstance(variance, str) else variance  # None: predicted by the network
        self.noise: Noise = noise
        self.must_be_learnt = variance == "learned"

    def check(self, schedule: Schedule, learns_variance: bool = False) -> None:
        super().check(schedule, learns_variance)
        if self.must_be_learnt and not learns_variance:
            raise UserError(_NOT_LEARNED)

    def step(self, solver: SolverState, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        prediction = solver.predict(x_t, t)
        mean, _ = q_posterior(solver.schedule, prediction.x_0, x_t, s, t)
        mix = prediction.variance_mix if self.mix is None else self.mix
        if mix is None and self.must_be_learnt:
            raise UserError(_NOT_LEARNED)
        mix = 0.0 if mix is None else mix
        variance = reverse_variance(solver.schedule, s, t, mix, x_t)
        return mean + variance.sqrt() * solver.reverse_noise(t, s)
