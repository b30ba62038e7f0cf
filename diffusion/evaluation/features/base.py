"""Base classes of image embeddings, and digests of what they depend on."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from diffusion.data.base import Data
from diffusion.ground.bar import Bar
from diffusion.ground.errors import UserError

BATCH = 64  # images per batch, fixed: another batch size rounds differently


class Embedded(NamedTuple):
    """features: float32 (n, d). probabilities: of the classes of the network, float32 (n, k), or None."""

    features: Tensor
    probabilities: Tensor | None


@dataclass(frozen=True)
class Extractor:
    """An embedding that is ready to use.

    network: uint8 (B, C, H, W) -> features (B, d), or features and logits (B, k), on any device. width: d. recipe:
    everything that the features depend on besides the images; values with equal recipes are comparable.
    """

    network: nn.Module
    width: int
    recipe: Mapping[str, Any]
    device: torch.device = field(default=torch.device("cpu"))

    @torch.inference_mode()
    def __call__(self, images: Tensor, progress: str | None = None) -> Embedded:
        """images: uint8 (n, C, H, W). progress: the label of a progress bar, None for no bar."""
        network = self.network.to(self.device).eval()
        features, logits = [], []
        with Bar(total=len(images), desc=progress or "", unit=" images", disable=progress is None) as bar:
            plain = images.flatten(1).contiguous().view(images.shape)  # strides change rounding
            for rows in plain.split(BATCH):
                found = network(rows.to(self.device))
                found = found if isinstance(found, tuple) else (found, None)
                features.append(found[0].float().cpu())
                if found[1] is not None:
                    logits.append(found[1].double().cpu())
                bar.update(len(rows))
        return Embedded(torch.cat(features), torch.cat(logits).softmax(1) if logits else None)

    @property
    def digest(self) -> str:
        """Digest of the recipe."""
        return hashlib.blake2b(repr(sorted(self.recipe.items())).encode(), digest_size=12).hexdigest()


class Features(ABC):
    """The choice of an embedding; a file in this folder and a yaml in conf/features add a new one."""

    name: ClassVar[str]

    @abstractmethod
    def extractor(self, data: Data) -> Extractor:
        """Loads or trains an embedding for images such as those of `data`. Raises UserError if it is not possible."""


def to_three_channels(images: Tensor) -> Tensor:
    """Grey images repeated to RGB; RGB unchanged. Raises UserError for other numbers of channels."""
    if images.shape[1] not in (1, 3):
        raise UserError(f"images of {images.shape[1]} channels: these features take 1 or 3; use features=pixels")
    return images.expand(-1, 3, -1, -1)


def sha256(path: Path) -> str:
    """SHA-256 of a file. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors: names, types, shapes and bytes."""
    made = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        made.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        made.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return made.hexdigest()
