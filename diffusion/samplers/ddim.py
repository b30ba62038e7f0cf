"""Denoising diffusion implicit models (Song, Meng & Ermon 2020)."""

from torch import Tensor

from diffusion.errors import UserError
from diffusion.samplers.base import Path, Sampler
from diffusion.schedule import broadcast


class DDIM(Sampler):
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - std^2) eps + std z, std = eta posterior_std (Eqs. 12 and 16).

    steps: how many, None for all T. eta: 0 is deterministic, 1 is ancestral sampling.
    """

    def __init__(self, steps: int | None = None, eta: float = 0.0):
        super().__init__(steps)
        if not 0 <= eta <= 1:
            raise UserError(f"sampler.eta={eta}: expected 0 (deterministic) to 1 (ancestral)")
        self.eta = eta

    def step(self, path: Path, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        prediction = path.predict(x_t, t)
        alpha_s, sigma_s = path.schedule(s)
        std = self.eta * sigma_s / prediction.sigma * path.schedule.beta(s, t).sqrt()
        along_eps = (sigma_s**2 - std**2).sqrt()
        x_s = broadcast(alpha_s, x_t) * prediction.x_0 + broadcast(along_eps, x_t) * prediction.eps
        return x_s + broadcast(std, x_t) * path.noise() if self.eta else x_s
