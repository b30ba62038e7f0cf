"""What a sampler draws, of all images of a seed at once."""

import torch

from diffusion.tasks.generate import generate


def draw(sampler, denoise, n=64, shape=(1, 16, 16), **options):
    batches = generate(denoise, sampler, shape, torch.arange(n), seed=0, batch_size=n, **options)
    return torch.cat([states for _, states in batches], dim=1)
