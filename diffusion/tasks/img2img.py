"""Image to image: variations of a picture, from a time t at which noise has removed its details."""

from torch import Tensor

from diffusion.config.value_types import File, Positive, checked
from diffusion.data.decoding import Limits
from diffusion.process import q_sample
from diffusion.samplers.times import from_time
from diffusion.spaces.base import Space
from diffusion.tasks import image_files
from diffusion.tasks.generate import Generate


@checked
class Img2Img(Generate):
    """x_t ~ q(x_t | picture) for each image, then the reverse process from t (Meng et al. 2022, SDEdit).

    image: the picture's file; t: in steps, 0 < t <= T, larger for more change, None is T / 2; space: the model's.
    """

    usual_n = 16

    def __init__(self, image: File, t: Positive | None, space: Space, limits: Limits | None = None):
        super().__init__(space, limits)
        self.x_0 = image_files.read("task.image", image, space, limits)
        self.t = t

    def times(self, sampler, schedule) -> Tensor:
        return from_time(super().times(sampler, schedule), schedule.T / 2 if self.t is None else self.t, schedule.T)

    def start(self, denoise, times, index, noise, condition=None) -> Tensor:
        eps = noise()
        return q_sample(denoise.schedule, self.x_0.to(eps).expand_as(eps), times[0], eps)
