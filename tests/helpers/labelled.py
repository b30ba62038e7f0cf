"""A model whose images show their labels."""

from torch import nn

from diffusion import clipping, parametrization, schedule
from diffusion.denoiser import Denoiser
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.samplers.ddim import DDIM
from diffusion.spaces.pixels import Pixels
from tests.helpers.labels import labels
from tests.helpers.labels import of as label_conditioning

SHAPE = (1, 4, 4)


class Labelled(nn.Module):
    """A network whose images are of one grey value, that of their label: -1 without one."""

    def forward(self, x, t, condition):
        return (labels(condition, x) / 4).reshape(-1, 1, 1, 1).expand_as(x).to(x.dtype)


def lit(network=None, classes=("cat", "dog", "7"), drop=0.1, shape=SHAPE, **options):
    denoiser = Denoiser(network or Labelled(), schedule.cosine(100), parametrization.X0())
    conditioning = label_conditioning(*classes, drop=drop) if classes else {}
    return LitDiffusion(
        denoiser, DDIM(steps=2), clipping.Unclipped(), Pixels(shape), conditioning=conditioning, config={}, **options
    )


def drawn_labels(model, n, **options):
    return (model.sample(n, progress=False, **options).mean((1, 2, 3)) * 4).round().int().tolist()
