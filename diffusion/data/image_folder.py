"""Any folder of images, decoded once into a memory-mapped uint8 array that is kept for later runs."""

import logging
from functools import cached_property
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.config.values import File, OpenFraction, Range, checked
from diffusion.data import ranges
from diffusion.data.base import ImageData, labelled
from diffusion.data.cache import DecodedCache
from diffusion.data.decoded import Decoded
from diffusion.data.formats import opened
from diffusion.data.layout import Hashed, Layout, Permuted
from diffusion.data.report import broken, report
from diffusion.ground.errors import UserError

_MEASURED = 100  # images, to know how large they are
_LAYOUTS = {"hash": Hashed, "permutation": Permuted}

log = logging.getLogger(__name__)


@checked
class ImageFolder(ImageData):
    """All images below `path`, resized to `size` at their short side, cropped at the centre, grey or RGB by `channels`.

    They are known by their content, whatever their suffix. The top folders are the classes, where at least two of them
    hold images.

    Args (those of ImageData, and):
        val_fraction: the probability that an image is kept for validation.
        split:        "hash": an image's side follows from its name below `path` alone, so that it keeps it whatever
                      else is added, removed, renamed or repaired, and a larger val_fraction only adds to the
                      validation images. Where that would leave no image for validation, the one of lowest hash is
                      taken (and where none for training, the one of highest): images that are added later can give it
                      back to training, but take none from there. Folders named train, val or test decide instead,
                      where there are at least two of these (`layout.Hashed`). "permutation": as format 0 found and
                      split images (`layout.Permuted`).
        on_broken:    "skip" leaves out images that cannot be read and says which; "error" refuses them.
        range:        the values that become black and white, in the files' own numbers. "container": 0 and the largest
                      of each file's type, so 255 or 65535; floats have none and are refused. "auto": the least and the
                      largest of all images. Or these two numbers; values outside are clipped.
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
        """What lies below `path`. Raises UserError where that is no picture."""
        return _LAYOUTS[self.split_rule](self.root)

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self.layout.classes

    def prepare_data(self) -> None:
        """Decodes the images, unless that has been done, and says what was found, once. Raises UserError for what
        `load` refuses, too."""
        decoded = self.decoded
        if self._reported:
            return
        self._reported = True
        print(*report(str(self.path), self.layout, decoded.files, self._n_val), sep="\n", flush=True)
        if decoded.skipped:
            log.warning("%s: left out %s", self.path, broken(decoded.skipped))
        for line in ranges.lines(self.range, decoded.limits, decoded.seen, len(decoded.files)):
            log.warning("%s: %s", self.path, line)

    def settled(self) -> dict[str, Any]:
        return {"range": [*(self.decoded.limits or ())]} if self.range == "auto" else {}

    def load(self, split: str) -> tuple[Tensor, Condition]:
        """Raises UserError where fewer than two images can be read, or any cannot and on_broken="error"."""
        rows = slice(self._n_val, None) if split == "train" else slice(self._n_val)
        images = torch.from_numpy(self.decoded.images[rows])
        if not self.classes:
            return images, Condition(len(images))
        label: dict[str | None, int] = {name: k for k, name in enumerate(self.classes)}
        labels = [label.get(self.layout.class_of(file), -1) for file in self.decoded.files[rows]]
        return images, labelled(torch.tensor(labels))

    @cached_property
    def own_size(self) -> int:
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
        """The images that can be read. Raises UserError where these are too few."""
        files = self.layout.files
        decoded = self.cache.decoded(self.root, files, self.size, self.channels, self.range)
        if decoded.skipped and self.on_broken == "error":
            raise UserError(f"{self.path}: {broken(decoded.skipped)}: mend them, or set dataset.on_broken=skip")
        n, named = len(decoded.files), f". {broken(decoded.skipped)}" if decoded.skipped else ""
        read = f"{self.path}: {n:,} of {len(files):,} images can be read"
        if n < 2:
            raise UserError(f"{read}, but at least 2 are needed (one is for validation){named}")
        n_val = self.layout.n_val(decoded.files, self.val_fraction)
        if n_val in (0, n):
            raise UserError(f"{read}, none of them for {'training' if n_val else 'validation'}{named}")
        return decoded
