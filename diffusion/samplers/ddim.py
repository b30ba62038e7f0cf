"""Denoising diffusion implicit models (Song, Meng & Ermon 2020), and their inversion."""

from itertools import pairwise

from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import Count, Fraction, Times, checked
from diffusion.denoiser import Denoise
from diffusion.samplers.base import Noise, Sampler, SolverState, combine
from diffusion.schedule import broadcast


@checked
class DDIM(Sampler):
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - std^2) eps + std z, std = eta posterior_std (Eqs. 12 and 16).

    eta: 0 is deterministic, 1 is ancestral sampling. noise: with eta, as in `DDPM`.
    """

    beyond = False

    def __init__(
        self,
        steps: Count | None = None,
        times: Times = "trailing",
        eta: Fraction = 0.0,
        noise: Noise = "independent",
    ):
        super().__init__(steps, times)
        self.noise: Noise = noise
        self.eta = eta
        self.draws_noise = eta > 0

    def unused(self) -> dict[str, str]:
        return {} if self.eta else {"sampler.noise": "with sampler.eta=0 no noise is added"}

    def step(self, solver: SolverState, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        prediction = solver.predict(x_t, t)
        alpha_s, sigma_s = solver.schedule(s)
        std = self.eta * sigma_s / prediction.sigma * solver.schedule.beta(s, t).sqrt()
        x_s = combine((alpha_s, prediction.x_0), ((sigma_s**2 - std**2).sqrt(), prediction.eps))
        return x_s + broadcast(std, x_t) * solver.reverse_noise(t, s) if self.eta else x_s


def invert(
    denoise: Denoise, x_0: Tensor, times: Tensor, condition: Condition | None = None, iterations: int = 3
) -> Tensor:
    """DDIM inversion: the x_T from which DDIM with eta = 0 reaches x_0, by the same steps in reverse.

    DDIM rotates by the angle delta between two times on the circle (alpha, sigma): x_s = cos(delta) x_t - sin(delta) v
    (Salimans & Ho 2022, appendix D). Each step solves this for x_t by fixed-point iteration from x_s; with v, unlike
    eps and x_0, it converges at both ends of time.

    x_0: (B, C, H, W). times: (steps + 1,), falling to 0. condition: of the images. Returns x at times[0].
    """
    x = x_0
    for s, t in pairwise(times.flip(0)):
        (alpha_s, sigma_s), (alpha_t, sigma_t) = denoise.schedule(s), denoise.schedule(t)
        cos, sin = alpha_s * alpha_t + sigma_s * sigma_t, alpha_s * sigma_t - sigma_s * alpha_t
        x_s = x
        for _ in range(iterations):
            x = combine((1 / cos, x_s), (sin / cos, denoise(x, t, condition).v))
    return x
