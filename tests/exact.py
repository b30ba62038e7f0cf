"""Denoisers known in closed form: the oracles of the tests."""

import torch

from diffusion.denoiser import Prediction
from diffusion.schedule import broadcast


class GaussianDenoiser:
    """E[x_0 | x_t] where the data are N(mean, std^2), each pixel for itself."""

    def __init__(self, schedule, mean=0.3, std=0.5):
        self.schedule, self.mean, self.std = schedule, mean, std

    def __call__(self, x_t, t, y=None):
        t = torch.as_tensor(t, dtype=torch.float64)
        alpha, sigma = self.schedule(t)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        x_0 = self.mean + broadcast(gain, x_t) * (x_t - broadcast(alpha, x_t) * self.mean)
        return Prediction(x_0, x_t, t, alpha, sigma)
