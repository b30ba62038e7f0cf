"""Denoiser: network + schedule + parametrization, (x_t, t, y) -> Prediction."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffusion.prediction import Parametrization
from diffusion.schedule import Schedule, broadcast


@dataclass(frozen=True)
class Prediction:
    """What a denoiser says of x_t. x_0 is stored; eps, v and the score follow from it, so that clipping x_0 can never
    leave a stale eps behind.

    x_0, x_t: (B, C, H, W); t, alpha, sigma: float64, scalar or (B,).
    """

    x_0: Tensor
    x_t: Tensor
    t: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def eps(self) -> Tensor:
        """(x_t - alpha_t x_0) / sigma_t; t > 0."""
        return (self.x_t - broadcast(self.alpha, self.x_t) * self.x_0) / broadcast(self.sigma, self.x_t)

    @property
    def v(self) -> Tensor:
        """alpha_t eps - sigma_t x_0 (Salimans & Ho 2022)."""
        return broadcast(self.alpha, self.x_t) * self.eps - broadcast(self.sigma, self.x_t) * self.x_0

    @property
    def score(self) -> Tensor:
        """grad log q(x_t) = -eps / sigma_t."""
        return -self.eps / broadcast(self.sigma, self.x_t)


class Denoiser(nn.Module):
    """A network that is called with the paper's t. Published networks number their steps 0..T-1: only here is t - 1."""

    def __init__(self, network: nn.Module, schedule: Schedule, parametrization: Parametrization):
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.parametrization = parametrization

    def output(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """The bare network output (B, C, H, W). t: scalar or (B,), in steps 0..T; y: int64 (B,) labels or None."""
        step = (t - 1).to(x_t.device, torch.float32).expand(len(x_t))
        return self.network(x_t, step, y).to(x_t.dtype)

    def forward(self, x_t: Tensor, t: Tensor | float, y: Tensor | None = None) -> Prediction:
        """x_t: (B, C, H, W); t: scalar or (B,), in steps 0..T; y: int64 (B,) labels or None."""
        t = torch.as_tensor(t, dtype=torch.float64)
        alpha, sigma = self.schedule(t)
        c_skip, c_out = self.parametrization.coefficients(alpha, sigma)
        x_0 = broadcast(c_skip, x_t) * x_t + broadcast(c_out, x_t) * self.output(x_t, t, y)
        return Prediction(x_0, x_t, t, alpha, sigma)
