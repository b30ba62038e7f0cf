"""Features of DINOv2, which agree better with human judgement than Inception's (Stein et al. 2023)."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.config.value_types import File, checked
from diffusion.data.base import Data
from diffusion.evaluation.features.base import Extractor, Features, to_three_channels
from diffusion.evaluation.features.weights import Published
from diffusion.ground.errors import UserError, reading

PUBLISHED = Published(
    "dinov2",
    "vit_large_patch14_dinov2.lvd142m.safetensors",
    None,
    "https://huggingface.co/timm/vit_large_patch14_dinov2.lvd142m/resolve/main/model.safetensors",
)
SIDE = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Network(nn.Module):
    """uint8 (B, 1 or 3, H, W) -> the class token after the last norm, (B, d).

    Resized to 224 x 224, bicubic with antialiasing, and normalised as ImageNet, as in dgm-eval.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vit: nn.Module):
        super().__init__()
        self.vit = vit
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(_STD)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        h = to_three_channels(x).float() / 255
        h = F.interpolate(h, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        return self.vit((h - self.mean) / self.std)


@checked
@dataclass(frozen=True)
class DINOv2(Features):
    """The class token of a ViT-L/14, d = 1024, for images of 1 or 3 channels and any size.

    path: of the weights file in the layout of timm; None: in $XDG_CACHE_HOME/diffusion/features or
    ~/.cache/diffusion/features. model: name of the architecture in timm. Raises UserError if the file is missing or
    of another network, or without timm.
    """

    path: File | None = None
    model: str = "vit_large_patch14_dinov2"

    name = "dinov2"

    def extractor(self, data: Data) -> Extractor:
        try:
            import timm
        except ImportError:
            raise UserError("features=dinov2 needs the package timm: pip install -e '.[eval]'") from None
        weights, digest = PUBLISHED.read(self.path)
        with reading(PUBLISHED.path(self.path), f"a weights file of {self.model}"):
            vit = timm.create_model(self.model, num_classes=0, img_size=SIDE, dynamic_img_size=True)
            vit.load_state_dict(weights)
        width: Any = vit.num_features
        recipe = {"features": self.name, "model": self.model, "weights": digest, "resize": f"bicubic {SIDE}"}
        return Extractor(Network(vit), width, recipe)
