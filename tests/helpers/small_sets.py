"""Small sets of images."""

import torch

from diffusion.ground import random


def pictures(n=300, shape=(1, 2, 4), seed=0, dtype=torch.float64):
    """A set that is neither Gaussian nor small against its noise."""
    return random.normal(seed, "test/pictures", torch.arange(n), shape).to(dtype).tanh()
