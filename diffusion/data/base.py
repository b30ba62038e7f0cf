"""What every data set shares: the order of an epoch, the split over processes, flips and exact resume.

A source (a sibling of this file) says only how its images are loaded. They stay as they are stored, in memory or in a
memory map, and a batch is one indexing operation, so there is no torch DataLoader and there are no workers. They become
x_0 once, on the device, in the training step.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.config.values import Count, File, Natural, checked
from diffusion.ground import random
from diffusion.ground.errors import UserError

_FINGERPRINTED = 10_000
_AT_A_TIME = 64  # of them
_TYPE = {torch.uint8: "uint8 in 0..255"}  # in words


class Declaration(NamedTuple):
    """What a data set stores.

    dtype: of its tensors. shape: (C, H, W) of one image.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]


class Batch(NamedTuple):
    """Images as they are stored, and who they are.

    x:     (B, C, H, W), of the declared type.
    condition: what the set tells of them, such as `label`, the class, int64 (B,).
    index: int64 (B,). In training the place of the image in the whole run (batch number * batch size + place in the
           batch of all processes), in validation its place in the validation set. Noise is drawn by it.
    """

    x: Tensor
    condition: Condition
    index: Tensor


def labelled(y: Tensor) -> Condition:
    """Labels int64 (N,), -1 for a missing one, as a condition."""
    known = Condition.of(label=y.clamp(min=0))
    return known.without(y < 0, ["label"]) if (y < 0).any() else known


@checked
class Data(LightningDataModule, ABC):
    """What one source stores, split into "train" and "val". One of its N values is called an image, whatever it is.

    Args:
        path:       folder of the data; None where it comes with a package.
        batch_size: images per batch over all processes; each process gets an equal part.
        name:       what messages and the folder of its runs call it.
        seed:       the order of epoch e is a function of (seed, e).
        flip:       mirror each training image with probability 1/2. Not for digits and letters.
        val_images: at most so many validation images, evenly spaced over the set; None means all.
        shape:      (C, H, W) of one image, which the data must have; None: whatever they have. A run fills it.

    `position`, the number of training batches given out in the whole run, is all the state there is. Lightning stores
    it in every checkpoint.
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
        """What is stored. Raises UserError where that cannot be known."""

    @abstractmethod
    def load(self, split: str) -> tuple[Tensor, Condition]:
        """Images (N, C, H, W), as declared, of the split "train" or "val", and what is known of each."""

    def split(self, split: str) -> tuple[Tensor, Condition]:
        """Like `load`, but read and checked only once. Raises UserError where the images are not as declared."""
        if split not in self._splits:
            images, condition = self.load(split)
            self._check(images)
            self._splits[split] = images, condition
        return self._splits[split]

    def describe(self) -> dict[str, Any]:
        """What a run records of its data: name, images of each split, and a fingerprint of these."""
        counts = {name: len(self.split(name)[0]) for name in ("train", "val")}
        return {"name": self.name, **counts, "fingerprint": self.fingerprint(*counts)}

    def fingerprint(self, *splits: str) -> str:
        """Of the conditions and up to 10,000 images of each split, evenly spaced: a larger set is not read through."""
        digest = hashlib.blake2b(digest_size=12)
        for name in splits:
            images, condition = self.split(name)
            rows = torch.arange(0, len(images), -(-len(images) // _FINGERPRINTED))
            labels = condition.filled("label", -1)
            labels = torch.full((len(images),), -1) if labels is None else labels
            names = sorted({*condition.asked} - {"label"})
            others = (each for name in names if (each := condition.filled(name, 0)) is not None)
            parts = (images[few] for few in rows.split(_AT_A_TIME))  # they may not fit into memory together
            for part in (torch.tensor(images.shape), labels, *parts, *others):
                digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()

    def settled(self) -> dict[str, Any]:
        """Settings that the data itself has decided, for the config that the run keeps."""
        return {}

    def train_dataloader(self) -> "TrainingBatches":
        return TrainingBatches(self)

    def val_dataloader(self) -> "ValidationBatches":
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
        """What to do where the images turn out to be of this shape, instead of the declared one."""
        return ""


@checked
class ImageData(Data):
    """Square pictures in 8 bits.

    Args (those of Data, and):
        channels: 1 (grey) or 3 (RGB).
        size:     height and width in pixels.
    """

    own_size: int | None = None
    """The shorter side of a typical image, in pixels, before it was brought to `size`; None where that is not known."""

    def __init__(self, *, channels: Literal[1, 3], size: Count, **common):
        super().__init__(shape=None, **common)  # channels and size say it
        self.channels = channels
        self.size = size

    @property
    def declaration(self) -> Declaration:
        return Declaration(torch.uint8, (self.channels, self.size, self.size))

    def _fix(self, shape: tuple[int, ...]) -> str:
        channels, height, _ = shape
        return f": set dataset.channels={channels} dataset.size={height}"


class TrainingBatches:
    """One pass is one epoch's number of batches, from wherever the run stands.

    Lightning counts the batches of a resumed epoch itself and stops at its end. An incomplete batch is left out. The
    length tells Lightning that nothing need be fetched ahead, so `position` never runs in front of the training.
    """

    def __init__(self, data: Data):
        self.data = data
        self.images, self.condition = data.split("train")
        self.local = data.local_batch_size
        if not len(self):
            raise UserError(
                f"{data.name}: dataset.batch_size={data.batch_size} is more than the {len(self.images)} training "
                f"images: set dataset.batch_size={len(self.images)} or less"
            )

    def __len__(self) -> int:
        return len(self.images) // self.data.batch_size

    def __iter__(self) -> Iterator[Batch]:
        data, per_epoch = self.data, len(self)
        known, order = None, torch.empty(0)
        for _ in range(per_epoch):
            epoch, number = divmod(data.position, per_epoch)
            if epoch != known:
                order, known = random.permutation(data.seed, f"order/{epoch}", len(self.images)), epoch
            place = torch.arange(self.local) + data.rank * self.local
            rows = order[number * data.batch_size + place]
            index = data.position * data.batch_size + place
            # Before the batch leaves: a checkpoint written during its step must count it.
            data.position += 1
            yield Batch(self._flip(self.images[rows], index), self.condition.rows(rows), index)

    def _flip(self, x: Tensor, index: Tensor) -> Tensor:
        if not self.data.flip:
            return x
        mirrored = random.uniform(self.data.seed, "flip", index) < 0.5
        return torch.where(mirrored[:, None, None, None], x.flip(-1), x)

    # Lightning asks the loader itself whether it can resume, and warns where it cannot.
    def state_dict(self) -> dict[str, int]:
        return self.data.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.data.load_state_dict(state_dict)


class ValidationBatches:
    """Every validation image once, in order; process r of w gets images r, r + w, r + 2w, ...

    Every process gets the same number of batches, none of them empty (FSDP hangs otherwise), of nearly equal sizes.
    """

    def __init__(self, data: Data):
        self.images, self.condition = data.split("val")
        available, world = len(self.images), data.world_size
        n = available if data.val_images is None else min(data.val_images, available)
        if n < world:
            raise UserError(f"{data.name}: {n} validation images, but each of {world} process(es) needs at least one")
        self.rows = torch.arange(n) * available // n
        batches = -(-(n // world) // data.local_batch_size)
        self.indexes = torch.arange(n)[data.rank :: world].tensor_split(batches)

    def __len__(self) -> int:
        return len(self.indexes)

    def __iter__(self) -> Iterator[Batch]:
        for index in self.indexes:
            rows = self.rows[index]
            yield Batch(self.images[rows], self.condition.rows(rows), index)
