"""The meaning of the folders of an image set: splits, classes, and the choice of validation images."""

import hashlib
import posixpath
import re
import unicodedata
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from diffusion.data.formats import COMMON
from diffusion.data.listing import Listing, counted, listing
from diffusion.ground import random
from diffusion.ground.errors import UserError

_SPLITS = {  # a year or a number may follow: train2017, test1
    "train": re.compile(r"train(ing)?[-_ ]?\d*", re.I),
    "val": re.compile(r"val(id|idation)?[-_ ]?\d*", re.I),
    "test": re.compile(r"test(ing)?[-_ ]?\d*", re.I),
}
_SUFFIXES_OF_FORMAT_0 = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class Layout(ABC):
    """The images below a folder, and the meaning of their folders. Paths are relative to that folder, with "/".

    files:    paths of the images, in the order of the split: those for validation come first.
    left_out: description -> number of files.
    bare:     folders without images.
    top:      the common parent of the images, such as "pets/images", which is neither a class nor a split.
    rule:     a description of how the images are split.

    Raises UserError if there are no images.
    """

    files: list[str]
    rule: str
    top = ""

    def __init__(self, root: Path, found: Listing):
        self.left_out, self.bare = found.left_out, found.bare
        if not found.pictures:
            seen = f"{found.left_out.total():,} files seen"
            if found.left_out:
                seen += f" ({', '.join(counted(found.left_out)[:10])})"
            formats = f"{', '.join(COMMON)} and rarer ones"
            raise UserError(
                f"dataset.path={root} has no images: {seen}; set dataset.path to a folder of images ({formats})"
            )

    @abstractmethod
    def class_of(self, file: str) -> str | None:
        """The class folder of an image, or None."""

    @abstractmethod
    def n_val(self, files: Sequence[str], fraction: float) -> int:
        """The number of validation images among `files`, two or more of `self.files` in their order. Without split
        folders, at least one image is for validation and at least one for training."""

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """The sorted names of the class folders, if there are at least two."""
        names = sorted({name for file in self.files if (name := self.class_of(file)) is not None})
        return tuple(names) if len(names) > 1 else None


class Hashed(Layout):
    """The split of an image depends only on the hash of its name, or on the split folder that contains it.

    The search descends through single folders to the first level with several folders, and ignores images beside that
    path. If at least two folders of this level are named train, val, test or similar, they are the splits: test serves
    as val if there is no val, and is left out otherwise, like everything beside the split folders. The folders of the
    next level are the classes; common parent folders are skipped here too.

    sides: split folder -> "train" or "val"; empty if the hash decides.
    """

    def __init__(self, root: Path):
        found = listing(root)
        super().__init__(root, found)
        self.top = _top(found.pictures)
        heads = Counter(map(self._head, found.pictures))
        self.sides = _sides(root, heads)
        self.rule = "by the hash of each name"
        files, self._level = found.pictures, 0  # of the class folders, below the top
        if self.sides:
            self.rule = "by the folders, not by val_fraction"
            for head in heads.keys() - self.sides.keys():
                self.left_out[f"pictures in {head}" if head else "pictures beside the split folders"] = heads[head]
            files = [file for file in files if self._head(file) in self.sides]
            entered = _common([self._below(file).partition("/")[2] for file in files])
            self._level = 1 + len(entered.split("/")) * bool(entered)
        self.files = sorted(files, key=self._rank)

    def class_of(self, file: str) -> str | None:
        folders = self._below(file).split("/")[self._level : -1]
        return _composed(folders[0]) if folders else None

    def n_val(self, files: Sequence[str], fraction: float) -> int:
        n = bisect_left(files, fraction, key=self._rank)
        return n if self.sides else min(max(1, n), len(files) - 1)

    def _below(self, file: str) -> str:
        """The path of a file relative to the top; for a file outside the top, its name."""
        prefix = f"{self.top}/" if self.top else ""
        return file[len(prefix) :] if file.startswith(prefix) else posixpath.basename(file)

    def _head(self, file: str) -> str | None:
        """The first folder of an image's path below the top."""
        head, folder, _ = self._below(file).partition("/")
        return head if folder else None

    def _rank(self, file: str) -> float:
        """The sort key: files with a value below val_fraction, in (0, 1), are for validation."""
        side = self.sides.get(self._head(file) or "")
        return chance(file) + {"val": -1, None: 0, "train": 1}[side]


class Permuted(Layout):
    """The layout of format 0, for runs that started with it: images are found by suffix and split by a permutation of
    the sorted list, in which one added image moves others; the top folders are the classes, whatever their names."""

    rule = "by a permutation, as the run began"

    def __init__(self, root: Path):
        found = listing(root, lambda folder, name: name.lower().endswith(_SUFFIXES_OF_FORMAT_0), junk=())
        super().__init__(root, found)
        order = random.permutation(0, "image_folder", len(found.pictures))
        self.files = [found.pictures[i] for i in order]

    def class_of(self, file: str) -> str | None:
        head, folder, _ = file.partition("/")
        return head if folder else None

    def n_val(self, files: Sequence[str], fraction: float) -> int:
        return min(max(1, round(fraction * len(files))), len(files) - 1)


def chance(file: str) -> float:
    """A pseudorandom number in [0, 1) that is a function of the name."""
    name = _composed(file).encode(errors="backslashreplace")  # a name may hold any bytes
    return int.from_bytes(hashlib.blake2b(name, key=b"image_folder", digest_size=6).digest(), "big") / 2**48


def _top(files: Sequence[str]) -> str:
    """The first folder with several folders in it, on the path through single folders; if there is none, the common
    folder of all files."""
    path, inside = [], list(files)
    while True:
        split = [file.partition("/") for file in inside if "/" in file]
        heads = {head for head, _, _ in split}
        if len(heads) != 1:
            return "/".join(path) if heads else _common(files)
        path += heads
        inside = [rest for _, _, rest in split]


def _common(files: Sequence[str]) -> str:
    """The common folder of all files, such as "pets/images", or ""."""
    return posixpath.commonpath([posixpath.dirname(min(files)), posixpath.dirname(max(files))])


def _composed(name: str) -> str:
    """The composed form of a name: macOS may store accents as separate characters."""
    return unicodedata.normalize("NFC", name)


def _sides(root: Path, heads: Iterable[str | None]) -> dict[str, str]:
    named = {head: kind for head in heads for kind, name in _SPLITS.items() if head and name.fullmatch(head)}
    kinds = set(named.values())
    if len(kinds) < 2:  # a single one is a parent folder, or a class such as trains among vehicles
        return {}
    if "train" not in kinds:
        raise UserError(
            f"dataset.path={root} has images in {', '.join(sorted(named))}, but no folder train: set dataset.path to "
            "one of these, to split its images"
        )
    held_out = "val" if "val" in kinds else "test"
    return {head: "train" if kind == "train" else "val" for head, kind in named.items() if kind in ("train", held_out)}
