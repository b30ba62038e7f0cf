"""A folder of images, decoded once into a memory-mapped uint8 array that later runs reuse."""

import logging
from functools import cached_property
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import File, OpenFraction, Range, checked
from diffusion.data import value_range
from diffusion.data.base import ImageData, labelled
from diffusion.data.cache import DecodedCache
from diffusion.data.decoded import Decoded
from diffusion.data.findings import broken, report
from diffusion.data.formats import opened
from diffusion.data.layout import Hashed, Layout, Permuted
from diffusion.ground.errors import UserError

_MEASURED = 100  # images opened to determine the typical size
_LAYOUTS = {"hash": Hashed, "permutation": Permuted}

log = logging.getLogger(__name__)


@checked
class ImageFolder(ImageData):
    """All images below `path`, with the short side resized to `size`, centre-cropped, grey or RGB by `channels`.

    Images are detected by content, whatever their suffix. The top folders are the classes, if at least two of them
    contain images.

    Args (those of ImageData, and):
        val_fraction: the probability that an image is held out for validation.
        split:        "hash": the split of an image depends only on its path relative to `path`. It stays the same when
                      other images are added, removed, renamed or repaired, and a larger val_fraction only adds
                      validation images. If no image is for validation, the one with the lowest hash is taken (if none
                      is for training, the one with the highest): images that are added later can return it to
                      training, but take none from there. If there are at least two folders named train, val or test,
                      these are the splits (`layout.Hashed`). "permutation": images are found and split as in format 0
                      (`layout.Permuted`).
        on_broken:    "skip" leaves out images that cannot be read and logs them; "error" is an error.
        range:        the values in the files that become black and white. "container": 0 and the largest value of the
                      file's type, such as 255 or 65535; floats are an error, since their type has none. "auto": the
                      smallest and the largest value of all images. [low,high]: these values; values outside are
                      clipped.
        cache:        folder of the decoded images, by default $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion.
    """

    def __init__(
        self,
        *,
        val_fraction: OpenFraction = 0.05,
        split: Literal["hash", "permutation"] = "hash",
        on_broken: Literal["skip", "error"] = "skip",
        range: Range = "container",
        cache: File | None = None,
        **common,
    ):
        super().__init__(**common)
        self.val_fraction = val_fraction
        self.split_rule = split
        self.on_broken = on_broken
        self.range: Range = range if isinstance(range, str) else (float(range[0]), float(range[1]))
        self.cache = DecodedCache(None if cache is None else str(cache))
        self._reported = False

    @cached_property
    def layout(self) -> Layout:
        """The layout of `path`. Raises UserError if it contains no images."""
        return _LAYOUTS[self.split_rule](self.root)

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self.layout.classes

    def prepare_data(self) -> None:
        """Decodes the images, unless they are cached, and prints a summary, once. Raises the same UserErrors as
        `load`."""
        decoded = self.decoded
        if self._reported:
            return
        self._reported = True
        print(*report(str(self.path), self.layout, decoded.files, self._n_val), sep="\n", flush=True)
        if decoded.skipped:
            log.warning("%s: left out %s", self.path, broken(decoded.skipped))
        for line in value_range.lines(self.range, decoded.limits, decoded.seen, len(decoded.files)):
            log.warning("%s: %s", self.path, line)

    def settled(self) -> dict[str, Any]:
        return {"range": [*(self.decoded.limits or ())]} if self.range == "auto" else {}

    def load(self, split: str) -> tuple[Tensor, Condition]:
        """Raises UserError if fewer than two images can be read, or if any cannot and on_broken="error"."""
        rows = slice(self._n_val, None) if split == "train" else slice(self._n_val)
        images = torch.from_numpy(self.decoded.images[rows])
        if not self.classes:
            return images, Condition(len(images))
        label: dict[str | None, int] = {name: k for k, name in enumerate(self.classes)}
        labels = [label.get(self.layout.class_of(file), -1) for file in self.decoded.files[rows]]
        return images, labelled(torch.tensor(labels))

    @cached_property
    def original_size(self) -> int:
        sides = []
        for file in self.decoded.files[:_MEASURED]:
            with opened(self.root / file) as image:
                sides.append(min(image.size))
        return int(median(sides))

    @property
    def _n_val(self) -> int:
        return self.layout.n_val(self.decoded.files, self.val_fraction)

    @cached_property
    def decoded(self) -> Decoded:
        """The images that can be read. Raises UserError if there are too few."""
        files = self.layout.files
        decoded = self.cache.decoded(self.root, files, self.size, self.channels, self.range)
        if decoded.skipped and self.on_broken == "error":
            raise UserError(f"{self.path}: {broken(decoded.skipped)}: repair them, or set dataset.on_broken=skip")
        n, named = len(decoded.files), f". {broken(decoded.skipped)}" if decoded.skipped else ""
        read = f"{self.path}: {n:,} of {len(files):,} images can be read"
        if n < 2:
            raise UserError(f"{read}, but at least 2 are needed (one is for validation){named}")
        n_val = self.layout.n_val(decoded.files, self.val_fraction)
        if n_val in (0, n):
            raise UserError(f"{read}, none of them for {'training' if n_val else 'validation'}{named}")
        return decoded
