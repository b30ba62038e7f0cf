"""Small models, and their data."""

import torch
from torch import nn

from diffusion import clipping, parametrization, schedule
from diffusion.conditioners.condition import PREVIOUS
from diffusion.conditioners.self_conditioning import Previous
from diffusion.data.digits import Digits
from diffusion.denoiser import Denoiser
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.losses.objective import Hybrid
from diffusion.losses.timesteps import LossSecondMoment
from diffusion.losses.weighting import MinSNR
from diffusion.networks.unet import UNet
from diffusion.optimization.optimizers import AdamW
from diffusion.samplers.ddpm import DDPM
from diffusion.spaces.pixels import Pixels
from tests.helpers.labels import of


class Small(nn.Module):
    """A network with dropout, so that torch's own randomness is part of what must be repeated."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(8, 1, 3, padding=1)
        )

    def forward(self, x, t, condition):
        return self.layers(torch.cat([x, (t / 1000).reshape(-1, 1, 1, 1).expand_as(x)], dim=1))


def small_model(seed=0, **optimizer):
    torch.manual_seed(0)
    denoiser = Denoiser(Small(), schedule.linear(), parametrization.Eps())
    plan = AdamW(**{"lr": 1e-3, "warmup_steps": 2} | optimizer)
    return LitDiffusion(denoiser, DDPM(), clipping.Static(), Pixels((1, 8, 8)), plan, seed=seed, config={})


def digits():
    return Digits(channels=1, size=8, batch_size=256, val_images=64)


def everything_model():
    """All that could forget itself: labels dropped, self-conditioning, learned variance, resampling by past losses."""
    torch.manual_seed(0)
    conditioning = {**of(*"0123456789", drop=0.3), PREVIOUS: Previous()}
    network = UNet(
        1, 2, 8, widths=(16,), layers=1, attention=(), mid_attention=False, norm_groups=8, conditioners=conditioning
    )
    return LitDiffusion(
        Denoiser(network, schedule.linear(20), parametrization.V()),
        DDPM(),
        clipping.Static(),
        Pixels((1, 8, 8)),
        AdamW(lr=1e-3, warmup_steps=2),
        objective=Hybrid(MinSNR()),
        timesteps=LossSecondMoment(history=2),
        conditioning=conditioning,
        config={},
    )
