"""Inpainting: known pixels of a picture are kept, the others drawn to match."""

from dataclasses import replace

import torch
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import Count, File, checked
from diffusion.data.decoding import Limits
from diffusion.denoiser import Denoise, Prediction
from diffusion.samplers.times import with_jumps
from diffusion.spaces.base import Space
from diffusion.tasks import image_files
from diffusion.tasks.generate import Generate


class KeepKnown:
    """A denoiser whose prediction is x_0 (1 or B, C, H, W) where `known` is true. eps and v of these pixels follow from
    x_0 and x_t, so every solver keeps them on q(x_t | x_0)."""

    def __init__(self, denoise: Denoise, x_0: Tensor, known: Tensor):
        self.denoise, self.x_0, self.known = denoise, x_0, known
        self.schedule = denoise.schedule

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        prediction = self.denoise(x_t, t, condition)
        x_0 = torch.where(self.known.to(x_t.device), self.x_0.to(x_t), prediction.x_0)
        return replace(prediction, x_0=x_0)


@checked
class Inpaint(Generate):
    """RePaint (Lugmayr et al. 2022): every stretch of `jump` steps is repeated `resamples` times, with noise added in
    between, which harmonizes drawn and known pixels. resamples=1 takes each step once.

    image, mask: files, see `image_files.read_mask`; the mask's white pixels are redrawn, the others kept. space: the
    model's.
    """

    usual_n = 16

    def __init__(
        self, image: File, mask: File, resamples: Count, jump: Count, space: Space, limits: Limits | None = None
    ):
        super().__init__(space, limits)
        self.x_0 = image_files.read("task.image", image, space, limits)
        self.known = ~image_files.read_mask(mask, image, space)
        self.resamples, self.jump = resamples, jump

    def times(self, sampler, schedule) -> Tensor:
        return with_jumps(super().times(sampler, schedule), self.jump, self.resamples)

    def unused(self, sampler) -> dict[str, str]:
        return {"task.jump": "with task.resamples=1 no step is repeated"} if self.resamples == 1 else {}

    def wrap(self, denoise) -> KeepKnown:
        return KeepKnown(denoise, self.x_0, self.known)
