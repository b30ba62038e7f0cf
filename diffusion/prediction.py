"""What the network predicts: eps, x_0 or v. Each is one linear form, x_0 = c_skip x_t + c_out output."""

from abc import ABC, abstractmethod

from torch import Tensor


class Parametrization(ABC):
    """How a network's output stands for x_0, at scales alpha_t, sigma_t (any shape that broadcasts)."""

    @abstractmethod
    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip and c_out of x_0 = c_skip x_t + c_out output."""

    @abstractmethod
    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the output should be for the pair (x_0, eps), the shape of x_0."""


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
