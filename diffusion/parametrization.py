"""The inputs and the prediction target of the network: eps, x_0, v, or EDM's F. Each is a linear form,
x_0 = c_skip x_t + c_out output."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffusion.config.value_types import Positive, checked
from diffusion.schedule import Schedule


class Parametrization(ABC):
    """The relation of network output and x_0, at scales alpha_t, sigma_t (any shape that broadcasts)."""

    scales_input = False  # whether `input_scale` is not 1

    @abstractmethod
    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip and c_out of x_0 = c_skip x_t + c_out output."""

    def input_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """c_in, the factor of x_t in the network input."""
        return torch.ones_like(alpha)

    def clock(self, t: Tensor, schedule: Schedule) -> Tensor:
        """The time input of the network for t, in the shape of t: by default t - 1, since published networks count
        steps 0..T-1 and the paper 1..T."""
        return t - 1

    @abstractmethod
    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The target output for the pair (x_0, eps), in the shape of x_0."""


class Eps(Parametrization):
    """The noise (Ho et al. 2020): x_0 = (x_t - sigma_t eps) / alpha_t."""

    def coefficients(self, alpha, sigma):
        return 1 / alpha, -sigma / alpha

    def target(self, x_0, eps, alpha, sigma):
        return eps


class X0(Parametrization):
    """The image itself."""

    def coefficients(self, alpha, sigma):
        return alpha * 0, alpha * 0 + 1

    def target(self, x_0, eps, alpha, sigma):
        return x_0


class V(Parametrization):
    """v = alpha_t eps - sigma_t x_0 (Salimans & Ho 2022): x_0 = alpha_t x_t - sigma_t v."""

    def coefficients(self, alpha, sigma):
        return alpha, -sigma

    def target(self, x_0, eps, alpha, sigma):
        return alpha * eps - sigma * x_0


@checked
class EDM(Parametrization):
    """The preconditioning of Karras et al. 2022 (Table 1), which gives network inputs and targets of variance 1.

    It is published for x_t / alpha_t and the noise level sigma_t / alpha_t; in x_t, alpha_t, sigma_t, with
    q^2 = sigma_t^2 + alpha_t^2 sigma_data^2, it is

        c_skip = alpha_t sigma_data^2 / q^2,   c_out = sigma_t sigma_data / q,   c_in = 1 / q,

    and for sigma_data = 1 the output is -v. sigma_data: the standard deviation of the data in [-1, 1].
    """

    scales_input = True

    def __init__(self, sigma_data: Positive = 0.5):
        self.sigma_data = sigma_data

    def coefficients(self, alpha, sigma):
        q = self._q(alpha, sigma)
        return alpha * self.sigma_data**2 / q**2, sigma * self.sigma_data / q

    def target(self, x_0, eps, alpha, sigma):
        return (sigma / self.sigma_data * x_0 - self.sigma_data * alpha * eps) / self._q(alpha, sigma)

    def input_scale(self, alpha, sigma):
        return 1 / self._q(alpha, sigma)

    def _q(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (sigma**2 + (alpha * self.sigma_data) ** 2).sqrt()
