"""The handwritten digits of scikit-learn: 8x8, grey, part of the package, no download."""

from typing import Annotated, Any

import torch
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.config.value_parsers import Expected
from diffusion.config.value_types import checked
from diffusion.data.base import ImageData, labelled
from diffusion.ground.errors import UserError

VAL_IMAGES = 297

NoPath = Annotated[None, Expected("null, since the digits are part of scikit-learn")]


@checked
class Digits(ImageData):
    """1,797 digits, 8x8, grey; the last 297 are for validation."""

    classes = tuple("0123456789")

    def __init__(self, *, path: NoPath = None, **common):
        super().__init__(path=path, **common)

    def load(self, split: str) -> tuple[Tensor, Condition]:
        """Raises UserError if scikit-learn is not installed."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise UserError("dataset=digits is part of scikit-learn: pip install scikit-learn") from error
        digits: Any = load_digits()  # a Bunch
        rows = slice(None, -VAL_IMAGES) if split == "train" else slice(-VAL_IMAGES, None)
        images = torch.from_numpy(digits.images[rows]) * (255 / 16)  # stored as 0..16
        return images.round().byte().unsqueeze(1), labelled(torch.from_numpy(digits.target[rows]).long())
