"""A `Foreign` as a model that samples, and its samples from given noise."""

import torch
from omegaconf import OmegaConf

from diffusion import build
from diffusion.clipping import Clip
from diffusion.config import compose


def model_of(foreign, weights=None):
    config = OmegaConf.to_container(compose("train"), resolve=True)
    for key, value in foreign.config.items():
        whole = not isinstance(value, dict) or "_target_" in value
        config[key] = value if whole else config[key] | value
    model = build.model(config).eval()
    model.denoiser.network.load_state_dict(weights or foreign.weights)
    return model


@torch.no_grad()
def sample(model, sampler, x_T, noise, y=None):
    """The end of the sampler's way from x_T; noise: one tensor a step."""
    stream = iter(noise)
    denoise = Clip(model.denoiser, model.clip)
    *_, last = sampler.trajectory(denoise, x_T, lambda: next(stream), y)
    return last.x
