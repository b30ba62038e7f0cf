"""The base of all data sets. Their batches, with order, flips and exact resume, are in `batches`.

A source (a sibling of this file) only defines how its images are loaded. They keep their stored type, in memory or in a
memory map. A batch is one indexing operation, so there is no torch DataLoader and there are no workers. The training
step converts a batch to x_0 on the device.
"""

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import Count, File, Natural, checked
from diffusion.data.batches import TrainingBatches, ValidationBatches
from diffusion.ground.errors import UserError

_FINGERPRINTED = 10_000
_AT_A_TIME = 64  # of the fingerprinted images
_TYPE = {torch.uint8: "uint8 in 0..255"}  # for messages


class Declaration(NamedTuple):
    """The stored format of a data set.

    dtype: of its tensors. shape: (C, H, W) of one image.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]


def labelled(y: Tensor) -> Condition:
    """A condition of labels int64 (N,), where -1 is a missing label."""
    known = Condition.of(label=y.clamp(min=0))
    return known.without(y < 0, ["label"]) if (y < 0).any() else known


@checked
class Data(LightningDataModule, ABC):
    """A data set, split into "train" and "val". Each of its N values is called an image, whatever it contains.

    Args:
        path:       folder of the data; None if a package contains it.
        batch_size: images per batch over all processes; each process gets an equal part.
        name:       used in messages and in the names of run folders.
        seed:       the order of epoch e is a function of (seed, e).
        flip:       mirror each training image with probability 1/2. Not for digits and letters.
        val_images: maximum number of validation images, evenly spaced over the set; None means all.
        shape:      required (C, H, W) of one image; None accepts any shape. A run sets it.

    `position`, the number of training batches yielded in the whole run, is the only state. Lightning stores it in every
    checkpoint.
    """

    classes: tuple[str, ...] | None = None
    """Names of the classes, by label; None for a set without labels."""

    def __init__(
        self,
        *,
        path: File | None,
        batch_size: Count,
        name: str | None = None,
        seed: Natural = 0,
        flip: bool = False,
        val_images: Count | None = None,
        shape: tuple[Count, Count, Count] | None = None,
    ):
        super().__init__()
        if name is not None and (name in ("", ".", "..") or Path(name).name != name):
            raise UserError(f"dataset.name={name}: expected the name of a folder, without a path")
        self.path = path
        self.batch_size = batch_size
        self.name: str = name or type(self).__name__
        self.seed = seed
        self.flip = flip
        self.val_images = val_images
        self.shape = shape
        self.position = 0
        self._splits: dict[str, tuple[Tensor, Condition]] = {}

    @property
    def root(self) -> Path:
        """The folder `path`. Raises UserError if it is not set."""
        if self.path is None:
            raise UserError(f"dataset.path is missing: {self.name} needs a folder")
        return Path(self.path).expanduser()

    @property
    @abstractmethod
    def declaration(self) -> Declaration:
        """The stored format. Raises UserError if it cannot be determined."""

    @abstractmethod
    def load(self, split: str) -> tuple[Tensor, Condition]:
        """Images (N, C, H, W), as declared, of the split "train" or "val", and their conditions."""

    def split(self, split: str) -> tuple[Tensor, Condition]:
        """Like `load`, but checked, and cached. Raises UserError if the images are not as declared."""
        if split not in self._splits:
            images, condition = self.load(split)
            self._check(images)
            self._splits[split] = images, condition
        return self._splits[split]

    def describe(self) -> dict[str, Any]:
        """The record of the data in a run: name, number of images in each split, and their fingerprint."""
        counts = {name: len(self.split(name)[0]) for name in ("train", "val")}
        return {"name": self.name, **counts, "fingerprint": self.fingerprint(*counts)}

    def fingerprint(self, *splits: str) -> str:
        """Hash of the conditions and of up to 10,000 evenly spaced images of each split: larger sets are not read in
        full."""
        digest = hashlib.blake2b(digest_size=12)
        for name in splits:
            images, condition = self.split(name)
            rows = torch.arange(0, len(images), -(-len(images) // _FINGERPRINTED))
            labels = condition.filled("label", -1)
            labels = torch.full((len(images),), -1) if labels is None else labels
            names = sorted({*condition.asked} - {"label"})
            others = (each for name in names if (each := condition.filled(name, 0)) is not None)
            parts = (images[few] for few in rows.split(_AT_A_TIME))  # together they may not fit into memory
            for part in (torch.tensor(images.shape), labels, *parts, *others):
                digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()

    def settled(self) -> dict[str, Any]:
        """Settings that were derived from the data, for the config that the run stores."""
        return {}

    def train_dataloader(self) -> TrainingBatches:
        return TrainingBatches(self)

    def val_dataloader(self) -> ValidationBatches:
        return ValidationBatches(self)

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.position = state_dict["position"]

    @property
    def rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    @property
    def local_batch_size(self) -> int:
        """Images per batch in this process."""
        if self.batch_size % self.world_size:
            raise UserError(
                f"dataset.batch_size={self.batch_size} is shared by {self.world_size} processes but does not divide "
                f"by {self.world_size}: try {self.batch_size // self.world_size * self.world_size or self.world_size}"
            )
        return self.batch_size // self.world_size

    def _check(self, images: Tensor) -> None:
        (dtype, declared), found = self.declaration, tuple(images.shape[1:])
        expected = tuple(self.shape or declared)
        if images.dtype != dtype:
            raise UserError(
                f"{self.name}: images must be {_TYPE.get(dtype, dtype)}, but are {images.dtype} "
                f"with min {images.min():g}, max {images.max():g}, std {images.double().std():g}"
            )
        if found != expected:
            (channels, height, width), (has, high, wide) = expected, found
            raise UserError(
                f"{self.name}: expected {channels} channels and {height}x{width} pixels, but the images have {has} and "
                f"{high}x{wide}{self._fix(found)}"
            )

    def _fix(self, shape: tuple[int, ...]) -> str:
        """The advice in the message for images of this shape instead of the declared one."""
        return ""


@checked
class ImageData(Data):
    """Square 8-bit images.

    Args (those of Data, and):
        channels: 1 (grey) or 3 (RGB).
        size:     height and width in pixels.
    """

    original_size: int | None = None
    """The shorter side of a typical image in pixels, before resizing to `size`; None if unknown."""

    def __init__(self, *, channels: Literal[1, 3], size: Count, **common):
        super().__init__(shape=None, **common)  # channels and size determine it
        self.channels = channels
        self.size = size

    @property
    def declaration(self) -> Declaration:
        return Declaration(torch.uint8, (self.channels, self.size, self.size))

    def _fix(self, shape: tuple[int, ...]) -> str:
        channels, height, _ = shape
        return f": set dataset.channels={channels} dataset.size={height}"
