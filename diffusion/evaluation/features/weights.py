"""Published weights files: located, verified by their digest, and read without unpickling."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from diffusion.evaluation.features.base import sha256
from diffusion.ground.errors import UserError, reading
from diffusion.ground.files import cache_folder


@dataclass(frozen=True)
class Published:
    """A weights file. name: of the file. sha256: of its bytes; None: any. source: URL of the publication."""

    choice: str
    name: str
    sha256: str | None
    source: str

    def path(self, given: str | Path | None) -> Path:
        """The given path, or that in the cache folder."""
        return Path(given).expanduser() if given else cache_folder() / "features" / self.name

    def read(self, given: str | Path | None) -> tuple[dict[str, Tensor], str]:
        """The tensors and the SHA-256 of the file. Raises UserError if it is missing, damaged or another file."""
        path = self.path(given)
        if not path.is_file():
            raise UserError(
                f"features={self.choice} needs the file {path}, which does not exist: download {self.source} to it, or "
                f"set features.path="
            )
        found = sha256(path)
        if self.sha256 is not None and found != self.sha256:
            raise UserError(
                f"{path} is damaged or another file: its SHA-256 is {found}, expected {self.sha256} ({self.source})"
            )
        return _tensors(path), found


def _tensors(path: Path) -> dict[str, Tensor]:
    with reading(path, "a readable file of weights"):
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        contents: Any = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(contents, Mapping) or not all(isinstance(each, Tensor) for each in contents.values()):
            raise ValueError("expected tensors by name")
        return {str(name): tensor for name, tensor in contents.items()}
