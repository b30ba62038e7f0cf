"""Tasks on small images: what they draw."""

import torch

from diffusion.spaces.pixels import Pixels
from diffusion.tasks.generate import generate

SHAPE = (1, 4, 4)
SPACE = Pixels(SHAPE)


def draw(task, sampler, denoise, n, shape=SHAPE, **options):
    batches = generate(denoise, sampler, shape, torch.arange(n), seed=0, task=task, **{"batch_size": n} | options)
    return torch.cat([states[-1] for _, states in batches])
