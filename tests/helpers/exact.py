"""Denoisers known in closed form: the oracles of the tests."""

import torch

from diffusion.denoiser import Prediction
from diffusion.schedule import broadcast


class _Exact:
    def __call__(self, x_t, t, condition=None):
        t = torch.as_tensor(t, dtype=torch.float64)
        alpha, sigma = self.schedule(t)
        return Prediction(self.x_0(x_t, alpha, sigma), x_t, t, alpha, sigma)


class GaussianDenoiser(_Exact):
    """E[x_0 | x_t] where the data are N(mean, std^2), each pixel for itself."""

    def __init__(self, schedule, mean=0.3, std=0.5):
        self.schedule, self.mean, self.std = schedule, mean, std

    def x_0(self, x_t, alpha, sigma):
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + broadcast(gain, x_t) * (x_t - broadcast(alpha, x_t) * self.mean)


class MixtureDenoiser(_Exact):
    """E[x_0 | x_t] where each pixel is one of two Gaussians, N(means[k], std^2) with probability weights[k]."""

    def __init__(self, schedule, means=(-0.6, 0.5), weights=(0.3, 0.7), std=0.3):
        self.schedule, self.std = schedule, std
        self.means = torch.tensor(means, dtype=torch.float64)
        self.weights = torch.tensor(weights, dtype=torch.float64)

    def x_0(self, x_t, alpha, sigma):
        x, variance = x_t.double().unsqueeze(-1), alpha**2 * self.std**2 + sigma**2
        distance = x - alpha * self.means
        share = torch.softmax(self.weights.log() - distance**2 / (2 * variance), dim=-1)
        return (share * (self.means + alpha * self.std**2 / variance * distance)).sum(-1).to(x_t)
