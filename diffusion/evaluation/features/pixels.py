"""Features without a network: the pixels themselves."""

from dataclasses import dataclass

from torch import Tensor, nn

from diffusion.config.value_types import checked
from diffusion.data.base import Data
from diffusion.evaluation.features.base import Extractor, Features
from diffusion.ground import images


class _Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return images.from_uint8(x).flatten(1)


@checked
@dataclass(frozen=True)
class Pixels(Features):
    """The values of an image in [-1, 1], d = C H W. They measure blur and noise, and little of the content."""

    name = "pixels"

    def extractor(self, data: Data) -> Extractor:
        _, shape = data.declaration
        width = int(shape[0] * shape[1] * shape[2])
        return Extractor(_Flat(), width, {"features": self.name, "width": width})
