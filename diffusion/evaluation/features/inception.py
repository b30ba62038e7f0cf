"""The features of the published FID: Inception-v3 of 2015, as ported from TensorFlow (Heusel et al. 2017)."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffusion.config.value_types import File, checked
from diffusion.data.base import Data
from diffusion.evaluation.features.base import Extractor, Features, to_three_channels
from diffusion.evaluation.features.weights import Published
from diffusion.ground.errors import UserError, reading

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

PUBLISHED = Published(
    "inception",
    "weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
WIDTH = 2048


class Network(nn.Module):
    """uint8 (B, 1 or 3, H, W) -> the 2,048 pooled features and the 1,008 logits without their bias, as in the
    published inception score. The network includes the resize of TensorFlow to 299 x 299."""

    def __init__(self, inception: "FeatureExtractorInceptionV3"):
        super().__init__()
        self.inception = inception

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.inception(to_three_channels(x))
        return features, logits


def architecture() -> "FeatureExtractorInceptionV3":
    """torch-fidelity's network with random weights. Raises UserError if the package is missing.

    Its constructor downloads or unpickles a file: it receives an empty one, which `load_state_dict` ignores.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise UserError("features=inception needs the package torch-fidelity: pip install -e '.[eval]'") from None

    class Empty(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
            return super().load_state_dict(state_dict, *args, **kwargs) if state_dict else None

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    path: Any = nothing
    return Empty("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=path)


@checked
@dataclass(frozen=True)
class Inception(Features):
    """Pool3 of Inception-v3, d = 2048, for images of 1 or 3 channels and any size.

    path: of the published weights file; None: in $XDG_CACHE_HOME/diffusion/features or ~/.cache/diffusion/features.
    Raises UserError if the file is missing or not the published one, or without torch-fidelity.
    """

    path: File | None = None

    name = "inception"

    def extractor(self, data: Data) -> Extractor:
        return extractor(PUBLISHED, self.path)


def extractor(published: Published, path: File | None) -> Extractor:
    """An extractor with the weights of a published file."""
    network = architecture()
    weights, digest = published.read(path)
    with reading(published.path(path), "a weights file of this network"):
        network.load_state_dict(weights)
    recipe = {"features": Inception.name, "weights": digest, "resize": "tensorflow bilinear 299"}
    return Extractor(Network(network), WIDTH, recipe)
