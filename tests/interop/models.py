"""A `Foreign` as a model that samples, by way of the checkpoint that is made of it; its samples from given noise."""

import torch

from diffusion.clipping import Clip
from diffusion.interop.foreign import write
from diffusion.runs import checkpoint


def model_of(foreign, folder, weights="ema"):
    write(foreign, folder / "ours.ckpt")
    return checkpoint.load(folder / "ours.ckpt", weights)


@torch.no_grad()
def sample(model, sampler, x_T, noise, condition=None):
    """The end of the sampler's way from x_T; noise: one tensor a step."""
    stream = iter(noise)
    denoise = Clip(model.denoiser, model.clip)
    *_, last = sampler.trajectory(denoise, x_T, lambda: next(stream), condition)
    return last.x
