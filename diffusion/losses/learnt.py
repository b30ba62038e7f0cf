"""A learnt weighting of the noise levels, trained with the network."""

import math

import torch
from torch import Tensor, nn

from diffusion.config.value_types import Count, checked
from diffusion.ground import random
from diffusion.losses.weighting import Weighting
from diffusion.schedule import Schedule

_LIMIT = 10.0  # of log(sigma / alpha): beyond, where it may be infinite, x_t is data or noise to all digits


@checked
class Learnt(Weighting, nn.Module):
    """exp(-u(t)) loss + u(t), with a small network u that is trained by the same optimizer (Kendall et al. 2018; in
    continuous time Karras et al. 2024, EDM2, "adaptive loss weighting"). Its optimum is u = log of the expected loss at
    t, so that all noise levels contribute equally.

        u(t) = w . sqrt(2 / channels) cos(2 pi (f c_noise + phi)),    c_noise = log(sigma_t / alpha_t) / 4

    f ~ N(0, 1) and phi ~ U(0, 1) are fixed (random Fourier features), w starts at 0. The base weight is 1 of the v
    error, which is EDM2's lambda(sigma) for data of unit variance; at the optimum it cancels.

    channels: number of features.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, channels: Count = 128):
        super().__init__()
        index = torch.arange(channels)
        self.register_buffer("frequencies", random.normal(0, "weighting/frequencies", index, ()))
        self.register_buffer("phases", random.uniform(0, "weighting/phases", index).float())
        self.weight = nn.Parameter(torch.zeros(channels))

    def of_log_snr(self, log_snr):
        return torch.ones_like(log_snr)

    def of_loss(self, loss, schedule, t):
        u = self.log_loss(schedule, t).to(loss)
        return (-u).exp() * loss + u

    def log_loss(self, schedule: Schedule, t: Tensor) -> Tensor:
        """u, the log of the expected loss at t: float32, the shape of t."""
        c_noise = (-schedule.log_snr(t) / 2).clamp(-_LIMIT, _LIMIT).float() / 4
        features = torch.cos(2 * math.pi * (c_noise[..., None] * self.frequencies.float() + self.phases.float()))
        # A sum of products: autocast would compute a matrix product in half precision.
        return math.sqrt(2 / len(self.weight)) * (features * self.weight.float()).sum(-1)
