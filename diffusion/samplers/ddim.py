"""Denoising diffusion implicit models (Song, Meng & Ermon 2020)."""

from collections.abc import Sequence

from torch import Tensor

from diffusion.errors import UserError
from diffusion.samplers.base import Path, Sampler, combine
from diffusion.schedule import broadcast


class DDIM(Sampler):
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - std^2) eps + std z, std = eta posterior_std (Eqs. 12 and 16).

    eta: 0 is deterministic, 1 is ancestral sampling.
    """

    beyond = False

    def __init__(self, steps: int | None = None, times: str | Sequence[float] = "trailing", eta: float = 0.0):
        super().__init__(steps, times)
        if not 0 <= eta <= 1:
            raise UserError(f"sampler.eta={eta}: expected 0 (deterministic) to 1 (ancestral)")
        self.eta = eta

    def step(self, path: Path, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        prediction = path.predict(x_t, t)
        alpha_s, sigma_s = path.schedule(s)
        std = self.eta * sigma_s / prediction.sigma * path.schedule.beta(s, t).sqrt()
        x_s = combine((alpha_s, prediction.x_0), ((sigma_s**2 - std**2).sqrt(), prediction.eps))
        return x_s + broadcast(std, x_t) * path.noise() if self.eta else x_s
