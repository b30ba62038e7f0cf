"""What the folders of a set of pictures mean: which are splits, which are classes, and who is kept for validation."""

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
    """The pictures below a folder, and the meaning of the folders above them. Paths are relative to it, with "/".

    files:    of the pictures, in the order of the split: those for validation come first.
    left_out: what -> how many.
    bare:     folders without pictures.
    top:      the folders that all pictures lie in, as "pets/images", where they mean nothing.
    rule:     a description of how the pictures are split.

    Raises UserError where there are no pictures.
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
        """The class folder that a picture lies in, or None."""

    @abstractmethod
    def n_val(self, files: Sequence[str], fraction: float) -> int:
        """How many of `files`, two or more of `self.files` in their order, are for validation. Where there are no split
        folders, at least one is, and one is not."""

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the class folders, sorted, where there are at least two."""
        names = sorted({name for file in self.files if (name := self.class_of(file)) is not None})
        return tuple(names) if len(names) > 1 else None


class Hashed(Layout):
    """A picture's side follows from the hash of its name alone, or from the split folder that it lies in.

    The folders on the way to all pictures are entered, whatever lies beside them. Where those at its end are named
    train, val, test or the like, at least two of these, they are splits: test stands for val where there is no val, and
    is left out otherwise, and so is what lies beside them. The folders below are the classes; here too, those that all
    pictures lie in are entered.

    sides: split folder -> "train" or "val"; empty where the hash decides.
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
        self.files = sorted(files, key=self._place)

    def class_of(self, file: str) -> str | None:
        folders = self._below(file).split("/")[self._level : -1]
        return _composed(folders[0]) if folders else None

    def n_val(self, files: Sequence[str], fraction: float) -> int:
        n = bisect_left(files, fraction, key=self._place)
        return n if self.sides else min(max(1, n), len(files) - 1)

    def _below(self, file: str) -> str:
        """Its path below the top; where it lies beside the top, its bare name."""
        prefix = f"{self.top}/" if self.top else ""
        return file[len(prefix) :] if file.startswith(prefix) else posixpath.basename(file)

    def _head(self, file: str) -> str | None:
        """The first folder below the top that a picture lies in."""
        head, folder, _ = self._below(file).partition("/")
        return head if folder else None

    def _place(self, file: str) -> float:
        """What is below val_fraction, a number between 0 and 1, is for validation."""
        side = self.sides.get(self._head(file) or "")
        return chance(file) + {"val": -1, None: 0, "train": 1}[side]


class Permuted(Layout):
    """How format 0 found and split pictures, for runs that began so: by a permutation of the sorted list, in which one
    added picture moves others, and by suffix; the top folders are the classes, whatever their names."""

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
    """In [0, 1), as if drawn by lot, but always the same for this name."""
    name = _composed(file).encode(errors="backslashreplace")  # a name need not be text
    return int.from_bytes(hashlib.blake2b(name, key=b"image_folder", digest_size=6).digest(), "big") / 2**48


def _top(files: Sequence[str]) -> str:
    """The first folder, on the way that all files take but those beside it, with several folders in it; where there is
    none, the folder that all files lie in."""
    way, inside = [], list(files)
    while True:
        split = [file.partition("/") for file in inside if "/" in file]
        heads = {head for head, _, _ in split}
        if len(heads) != 1:
            return "/".join(way) if heads else _common(files)
        way += heads
        inside = [rest for _, _, rest in split]


def _common(files: Sequence[str]) -> str:
    """The folders that all files lie in, as "pets/images", or ""."""
    return posixpath.commonpath([posixpath.dirname(min(files)), posixpath.dirname(max(files))])


def _composed(name: str) -> str:
    """macOS may take accents apart; where they are typed, and elsewhere, they are part of the letter."""
    return unicodedata.normalize("NFC", name)


def _sides(root: Path, heads: Iterable[str | None]) -> dict[str, str]:
    named = {head: kind for head in heads for kind, name in _SPLITS.items() if head and name.fullmatch(head)}
    kinds = set(named.values())
    if len(kinds) < 2:  # a single one is entered, or it is the class of trains among other vehicles
        return {}
    if "train" not in kinds:
        raise UserError(
            f"dataset.path={root} has images in {', '.join(sorted(named))}, but in no folder train: set dataset.path to"
            " one of these, whose images are then split"
        )
    held_out = "val" if "val" in kinds else "test"
    return {head: "train" if kind == "train" else "val" for head, kind in named.items() if kind in ("train", held_out)}
