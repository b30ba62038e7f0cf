"""Weightings of the noise levels: a weight of the squared error of v, as a function of log-SNR.

v is the unit because its error stays finite at both ends of time. In the units of other papers

    |eps error|^2 = alpha_t^2 |v error|^2,    |x_0 error|^2 = sigma_t^2 |v error|^2,    alpha_t^2 = sigmoid(log_snr),

whatever the network predicts. A weight w of the eps error becomes sigmoid(log_snr) w, a weight w of the x_0 error
sigmoid(-log_snr) w.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.config.value_types import NonNegative, Positive, checked
from diffusion.schedule import Schedule


class Weighting(ABC):
    """t -> the weight of |v error|^2."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """The shape of t, `precise`; t in steps 1..T."""
        return self.of_log_snr(schedule.log_snr(t))

    @abstractmethod
    def of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The weight at this log-SNR."""

    def of_loss(self, loss: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
        """The minimised loss, given the weighted losses (B,) of images at t (B,); unchanged by a fixed weighting."""
        return loss


@dataclass(frozen=True)
class Simple(Weighting):
    """1 of the eps error: L_simple (Ho et al. 2020, Eq. 14)."""

    def of_log_snr(self, log_snr):
        return torch.sigmoid(log_snr)


@checked
@dataclass(frozen=True)
class SNR(Weighting):
    """SNR + plus of the x_0 error (Salimans & Ho 2022): with plus = 1 it is 1 of the v error; with 0 it is `Simple`."""

    plus: NonNegative = 1.0

    def of_log_snr(self, log_snr):
        return torch.sigmoid(log_snr) + self.plus * torch.sigmoid(-log_snr)


@checked
@dataclass(frozen=True)
class MinSNR(Weighting):
    """min(SNR, gamma) of the x_0 error (Hang et al. 2023)."""

    gamma: Positive = 5.0

    def of_log_snr(self, log_snr):
        return torch.minimum(torch.sigmoid(log_snr), self.gamma * torch.sigmoid(-log_snr))


@checked
@dataclass(frozen=True)
class P2(Weighting):
    """1 / (k + SNR)^gamma of the eps error (Choi et al. 2022)."""

    k: NonNegative = 1.0
    gamma: float = 1.0

    def of_log_snr(self, log_snr):
        return torch.sigmoid(log_snr) / (self.k + log_snr.exp()) ** self.gamma


class VLB(Weighting):
    """T times the weights of the variational bound, so that the mean over t is the bound in nats:
    (SNR_{t-1} - SNR_t) / 2 of the x_0 error (Ho et al. 2020, Eq. 12; Kingma et al. 2021, Eq. 13). At t = 1, where SNR_0
    is infinite, the decoder is a Gaussian of variance beta_1.
    """

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        log_snr, before = schedule.log_snr(t), schedule.log_snr((t - 1).clamp(min=0))
        # (SNR_s - SNR_t) sigma_t^2, where SNR_t sigma_t^2 = alpha_t^2
        kl = torch.sigmoid(-log_snr) * before.exp() - torch.sigmoid(log_snr)
        return schedule.T / 2 * torch.where(t > 1, kl, 1.0) * self.of_log_snr(log_snr)

    def of_log_snr(self, log_snr):
        return torch.ones_like(log_snr)


@checked
class Sigmoid(VLB):
    """The bound, weighted by sigmoid(bias - log_snr) (Kingma & Gao 2023; Hoogeboom et al. 2024)."""

    def __init__(self, bias: float = 0.0):
        self.bias = bias

    def of_log_snr(self, log_snr):
        return torch.sigmoid(self.bias - log_snr)
