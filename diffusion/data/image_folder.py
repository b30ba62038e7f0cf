"""Any folder of images, decoded once into a memory-mapped uint8 array that is kept for later runs."""

import hashlib
import logging
import os
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import random
from diffusion.data import ranges
from diffusion.data.base import ImageData
from diffusion.data.cache import DecodedCache
from diffusion.data.decoded import Decoded
from diffusion.errors import UserError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_LISTED = 10  # broken images a message names

log = logging.getLogger(__name__)


class ImageFolder(ImageData):
    """All images below `path`, resized to `size` at their short side, cropped at the centre, grey or RGB by `channels`.

    The names of the top-level folders are the classes, where at least two of them hold images.

    Args (those of ImageData, and):
        val_fraction: the probability that an image is kept for validation.
        split:        "hash": an image's side follows from its name below `path` alone, so that it keeps it whatever
                      else is added, removed, renamed or repaired, and a larger val_fraction only adds to the
                      validation images. Where that would leave no image for validation, the one of lowest hash is
                      taken (and where none for training, the one of highest): images that are added later can give it
                      back to training, but take none from there. "permutation": how format 0 split, where one added
                      image moves others.
        on_broken:    "skip" leaves out images that cannot be read and says which; "error" refuses them.
        range:        the values that become black and white, in the files' own numbers. "container": 0 and the largest
                      of each file's type, so 255 or 65535; floats have none and are refused. "auto": the least and the
                      largest of all images. Or these two numbers; values outside are clipped.
        cache:        folder of the decoded images, by default $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion.
    """

    def __init__(
        self,
        *,
        val_fraction: float = 0.05,
        split: str = "hash",
        on_broken: str = "skip",
        range: str | Sequence[float] = "container",
        cache: str | None = None,
        **common,
    ):
        super().__init__(**common)
        if not 0 < val_fraction < 1:
            raise UserError(f"dataset.val_fraction={val_fraction} must lie between 0 and 1")
        if on_broken not in ("skip", "error"):
            raise UserError(f"dataset.on_broken={on_broken} must be skip or error")
        if self.channels not in (1, 3):
            raise UserError(f"dataset.channels={self.channels} must be 1 (grey) or 3 (RGB)")
        if split not in ("hash", "permutation"):
            raise UserError(f"dataset.split={split} must be hash or permutation")
        self.val_fraction = val_fraction
        self.by_hash = split == "hash"
        self.on_broken = on_broken
        self.range = ranges.check(range)
        self.cache = DecodedCache(cache)

    @cached_property
    def files(self) -> list[str]:
        """Images below `path`, relative to it, in the order of the split: the first are for validation.

        Raises UserError where there are none.
        """
        root = Path(self.path).expanduser()
        seen = list(_walk(root))
        images = sorted(file for file in seen if file.lower().endswith(EXTENSIONS))
        if not images:
            problem = "has no images" if root.is_dir() else "is not a folder"
            raise UserError(
                f"dataset.path={self.path} {problem}: {len(seen)} files seen, none of them with "
                f"{' '.join(EXTENSIONS)}: set dataset.path to a folder of images"
            )
        if self.by_hash:
            return sorted(images, key=_chance)
        return [images[i] for i in random.permutation(0, "image_folder", len(images))]

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        folders = sorted({file.split("/")[0] for file in self.files if "/" in file})
        return tuple(folders) if len(folders) > 1 else None

    def prepare_data(self) -> None:
        """Decodes the images, unless that has been done. Raises UserError for what `load` refuses, too."""
        decoded = self._decoded()
        if decoded.skipped:
            log.warning("%s: left out %s", self.path, _list(decoded.skipped))
        for line in ranges.lines(self.range, decoded.limits, decoded.seen):
            log.warning("%s: %s", self.path, line)

    def settled(self) -> dict[str, Any]:
        return {"range": list(self._decoded().limits)} if self.range == "auto" else {}

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        """Raises UserError where fewer than two images can be read, or any cannot and on_broken="error"."""
        decoded = self._decoded()
        n = len(decoded.files)
        n_val = sum(_chance(file) < self.val_fraction for file in decoded.files)
        if not self.by_hash:
            n_val = round(self.val_fraction * n)
        n_val = min(max(1, n_val), n - 1)
        rows = slice(n_val, None) if split == "train" else slice(n_val)
        label = {name: k for k, name in enumerate(self.classes or ())}
        labels = [label.get(file.split("/")[0], -1) for file in decoded.files[rows]]
        return torch.from_numpy(decoded.images[rows]), torch.tensor(labels)

    def _decoded(self) -> Decoded:
        decoded = self.cache.decoded(Path(self.path).expanduser(), self.files, self.size, self.channels, self.range)
        if decoded.skipped and self.on_broken == "error":
            raise UserError(f"{self.path}: {_list(decoded.skipped)}: mend them, or set dataset.on_broken=skip")
        if len(decoded.files) < 2:
            raise UserError(
                f"{self.path}: {len(decoded.files)} of {len(self.files)} images can be read, but at least 2 are needed"
                f" (one is for validation). {_list(decoded.skipped)}"
            )
        return decoded


def _chance(file: str) -> float:
    """In [0, 1), as if drawn by lot, but always the same for this name, however a system composes its accents."""
    name = unicodedata.normalize("NFC", file).encode(errors="backslashreplace")  # a name need not be text
    return int.from_bytes(hashlib.blake2b(name, key=b"image_folder", digest_size=6).digest(), "big") / 2**48


def _walk(root: Path) -> Iterator[str]:
    """Files below a folder, relative to it, with "/"; hidden ones and those in hidden folders are left out."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen:  # a link to a folder above it would never end
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from ((Path(folder) / name).relative_to(root).as_posix() for name in files if not name.startswith("."))


def _list(skipped: dict[str, str]) -> str:
    named = ", ".join(f"{file} ({reason})" for file, reason in list(skipped.items())[:_LISTED])
    named = named.encode(errors="backslashreplace").decode()  # a name need not be text
    rest = f", and {len(skipped) - _LISTED} more" if len(skipped) > _LISTED else ""
    return f"{len(skipped)} broken images: {named}{rest}"
