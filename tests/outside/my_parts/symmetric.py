"""A task: images that are their own mirror image."""

from dataclasses import replace
from typing import Literal

from torch import Tensor

from diffusion.config.value_types import checked
from diffusion.data.decoding import Limits
from diffusion.denoiser import Denoise
from diffusion.spaces.base import Space
from diffusion.tasks.generate import Generate


@checked
class Symmetric(Generate):
    """Begins with noise that is its own mirror image, and makes each prediction so.

    axis: along which they are mirrored. space, limits: given by the program.
    """

    usual_n = 16
    usual_sampler = "ddim"  # without noise in its steps

    def __init__(self, axis: Literal["width", "height"], space: Space, limits: Limits | None = None):
        super().__init__(space, limits)
        self.dim = {"height": -2, "width": -1}[axis]

    def start(self, denoise, times, index, noise, condition=None) -> Tensor:
        x = noise()
        return (x + x.flip(self.dim)) / 2**0.5

    def wrap(self, denoise: Denoise) -> Denoise:
        return Mirrored(denoise, self.dim)


class Mirrored:
    """A denoiser whose x_0 is the mean of what it says and its mirror image; eps and v follow."""

    def __init__(self, denoise: Denoise, dim: int):
        self.denoise, self.schedule, self.dim = denoise, denoise.schedule, dim

    def __call__(self, x_t, t, condition=None):
        prediction = self.denoise(x_t, t, condition)
        return replace(prediction, x_0=(prediction.x_0 + prediction.x_0.flip(self.dim)) / 2)
