"""Published data sets that torchvision downloads and reads: MNIST, Fashion-MNIST, CIFAR-10."""

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision import datasets
from torchvision.transforms.v2.functional import resize

from diffusion.conditioners.condition import Condition
from diffusion.data.base import ImageData, labelled
from diffusion.ground.errors import UserError


def to_size(images: Tensor, size: int) -> Tensor:
    """uint8 (N, C, H, H) -> (N, C, size, size): enlarged by a black border, reduced by antialiased resizing."""
    border = size - images.shape[-1]
    if border < 0:
        return resize(images, [size, size], antialias=True)
    before, after = border // 2, border - border // 2
    return pad(images, (before, after, before, after))


class TorchvisionData(ImageData):
    """A torchvision data set in `path`, in torchvision's file layout. The test set of torchvision is "val".

    It is downloaded to `path` and checked by hash, unless it is already there.
    """

    source: Callable[..., Any]
    folder: str
    """The folder of the downloaded files, relative to `path`."""
    files: tuple[str, ...]

    def prepare_data(self) -> None:
        """Raises UserError if the download fails, and names the files to add manually."""
        try:
            self._open("train")
            self._open("val")
        except _MissingError:
            self._download()

    def load(self, split: str) -> tuple[Tensor, Condition]:
        """Raises UserError if the files are missing or damaged."""
        try:
            found = self._open(split)
        except _MissingError as error:
            raise UserError(f"{self.name} is not in {self.path}: {self._by_hand()}") from error
        images = torch.as_tensor(found.data)
        images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        return to_size(images, self.size).contiguous(), labelled(torch.as_tensor(found.targets).long())

    def _open(self, split: str) -> Any:
        """The torchvision data set: its images are `data`, its labels `targets`."""
        try:
            return self.source(self.root, train=split == "train", download=False)
        except Exception as error:
            if "not found" in str(error):  # torchvision has no exception class for this
                raise _MissingError from error
            raise UserError(
                f"{self.name}: a file in {self._home()} is damaged ({error}): delete the files of that folder, then "
                "run again"
            ) from error

    def _download(self) -> None:
        try:
            self.source(self.root, download=True)
        except (OSError, RuntimeError) as error:
            self._remove_empty_folders()
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.name} could not be downloaded ({reason}): {self._by_hand()}") from error

    def _remove_empty_folders(self) -> None:
        """Removes the folders in `path` that torchvision created and left empty."""
        root = self.root.resolve()
        with contextlib.suppress(OSError):
            for folder in itertools.takewhile(lambda folder: folder != root, (self._home(), *self._home().parents)):
                folder.rmdir()

    def _home(self) -> Path:
        return self.root.resolve() / self.folder

    def _by_hand(self) -> str:
        return f"put {', '.join(self.files)} into {self._home()}, or set dataset.path to a folder with {self.folder}"


class _MissingError(Exception):
    """torchvision did not find all files."""


class MNIST(TorchvisionData):
    """60,000 + 10,000 handwritten digits, 28x28, grey."""

    source = datasets.MNIST
    original_size = 28
    folder = "MNIST/raw"
    files = tuple(name for name, _ in datasets.MNIST.resources)
    classes = tuple("0123456789")


class FashionMNIST(TorchvisionData):
    """60,000 + 10,000 pieces of clothing, 28x28, grey."""

    source = datasets.FashionMNIST
    original_size = 28
    folder = "FashionMNIST/raw"
    files = tuple(name for name, _ in datasets.FashionMNIST.resources)
    classes = tuple(datasets.FashionMNIST.classes)


class CIFAR10(TorchvisionData):
    """50,000 + 10,000 photographs of ten classes, 32x32, RGB."""

    source = datasets.CIFAR10
    original_size = 32
    folder = "."
    files = (datasets.CIFAR10.filename,)
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
