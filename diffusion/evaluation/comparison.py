"""Images to evaluate against those of a dataset, and the features of both, each computed once."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from diffusion.data.base import Data
from diffusion.evaluation.features.base import Embedded, Extractor
from diffusion.evaluation.formulas import Moments
from diffusion.ground.errors import UserError, reading
from diffusion.ground.files import atomic, cache_folder

Split = Literal["train", "val"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """images: uint8 (n, C, H, W). data: the reference dataset. extractor: of the features. reference: the split
    of `data` for distances, or a npz file with the moments (mu, sigma) of another set. seed: of random numbers of
    metrics. progress: whether to show a progress bar for the embedding of the images."""

    images: Tensor
    data: Data
    extractor: Extractor
    reference: str = "train"
    seed: int = 0
    progress: bool = True

    def check(self) -> None:
        """Raises UserError for a dataset of values other than images, or a file without moments."""
        pictures(self.data, self._split)
        if self._file is not None:
            read_moments(self._file, self.extractor.width)

    @cached_property
    def embedded(self) -> Embedded:
        return self.extractor(self.images, "features" if self.progress else None)

    @property
    def features(self) -> Tensor:
        """Features of the images, float64 (n, d)."""
        return self.embedded.features.double()

    @property
    def reference_features(self) -> Tensor:
        """Features of the reference split, float64 (m, d). Raises UserError if only its moments are known."""
        if self._file is not None:
            raise UserError(
                f"reference={self.reference} has the moments of features, not the features: only metric=fd accepts it"
            )
        return self.of_split(self._split)

    @cached_property
    def reference_moments(self) -> Moments:
        if self._file is None:
            return Moments.of(self.reference_features)
        return read_moments(self._file, self.extractor.width)

    def of_split(self, split: Split) -> Tensor:
        """The features of all images of a split, float64 (m, d); cached in the cache folder."""
        path = self._cached(split)
        try:
            return safetensors.torch.load_file(path)["features"].double()
        except (OSError, SafetensorError, KeyError):
            pass
        found = self.extractor(pictures(self.data, split), f"features of {self.data.name}/{split}").features
        with atomic(path) as temporary:
            safetensors.torch.save_file({"features": found}, temporary)
        return found.double()

    def protocol(self) -> dict[str, Any]:
        """Everything that a result depends on besides the images: two results are comparable only if it is equal."""
        _, channels, *size = self.images.shape
        if self._file is not None:
            reference: dict[str, Any] = {"file": self._file.name, "n": self.reference_moments.n}
        else:
            images, _ = self.data.split(self._split)
            fingerprint = self.data.fingerprint(self._split)
            reference = {"split": self._split, "n": len(images), "fingerprint": fingerprint}
        return {
            "n": len(self.images),
            "images": {"channels": channels, "size": size, "rounding": "uint8"},
            "reference": {"data": self.data.name, **reference},
            "features": dict(self.extractor.recipe),
            "seed": self.seed,
        }

    def _cached(self, split: Split) -> Path:
        name = f"{self.data.fingerprint(split)}-{self.extractor.digest}.safetensors"
        return cache_folder() / "features" / name

    @property
    def _file(self) -> Path | None:
        return None if self.reference in ("train", "val") else Path(self.reference)

    @property
    def _split(self) -> Split:
        return "val" if self.reference == "val" else "train"


def pictures(data: Data, split: Split) -> Tensor:
    """All images of a split, uint8 (m, C, H, W). Raises UserError for a set of other values."""
    dtype, _ = data.declaration
    if dtype != torch.uint8:
        raise UserError(f"{data.name} stores {dtype}: the metrics of images need 8-bit images")
    images, _ = data.split(split)
    return torch.as_tensor(images[:])


def read_moments(path: Path, width: int) -> Moments:
    """The moments in a npz of `mu` and `sigma`, as pytorch-fid and guided-diffusion write them. Raises UserError if
    it is no such file, or has features of another width."""
    with reading(path, "a npz file with mu (d,) and sigma (d, d)"), np.load(path, allow_pickle=False) as found:
        mean, cov = (torch.from_numpy(np.asarray(found[name], dtype=np.float64)) for name in ("mu", "sigma"))
        if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
            raise ValueError(f"mu {tuple(mean.shape)}, sigma {tuple(cov.shape)}")
    if len(mean) != width:
        raise UserError(f"{path} has {len(mean)} features, but these have {width}: choose other features=")
    return Moments(0, mean, cov)


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> both values, where two protocols differ: the reasons why their results are not comparable."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found[f"{prefix}{key}"] = (a, b)
    return found
