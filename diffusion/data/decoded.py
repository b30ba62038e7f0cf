"""Decoded images on the disk: a memory-mapped uint8 array, and an index of what is in it."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import PIL

from diffusion.data import ranges
from diffusion.data.decoding import BACKGROUND, VERSION, Limits, read_picture, read_values
from diffusion.data.ranges import Range, Seen
from diffusion.ground.bar import Bar

IMAGES, INDEX = "images.npy", "index.json"
PLACE = "of-"
_HAS_TIME_OF_CHANGE = os.name != "nt"
_AHEAD = 256  # files read before the first of their results is used

Result = TypeVar("Result")


class Request(NamedTuple):
    """What is to be decoded: `files` below `root`, to size x size pixels."""

    root: Path
    files: Sequence[str]
    size: int
    channels: int
    range: Range

    @property
    def n_bytes(self) -> int:
        return math.prod((len(self.files), self.channels, self.size, self.size))

    def key(self, stamps: Iterable[str]) -> str:
        """Changes with every file, by its stamp, and with all that changes the decoded images. Pillow decides pixels,
        and which files can be read."""
        settings = [VERSION, PIL.__version__, BACKGROUND, self.size, self.channels, self.range]
        digest = hashlib.blake2b(repr(settings).encode(), digest_size=12)
        for file, stamp in zip(self.files, stamps, strict=True):
            digest.update(f"\n{file}\n{stamp}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def place(self) -> str:
        """The same for a folder and settings, whatever is in the folder."""
        settings = str(self.root.resolve()), self.size, self.channels, self.range
        return PLACE + hashlib.blake2b(repr(settings).encode(errors="surrogateescape"), digest_size=12).hexdigest()

    def status(self) -> Iterable[str]:
        """Stamps that cost no reading. Dates of files can be set, and are by programs that unpack archives; inode and
        time of change cannot."""
        if not _HAS_TIME_OF_CHANGE:
            return self.contents()
        return (_status(os.path.join(self.root, file)) for file in self.files)

    def contents(self) -> list[str]:
        """Stamps that are the same for a copy in another place."""
        return [stamp for _, stamp in self._each(_digest, "hashing")]

    def limits(self) -> Limits | None:
        """What the range means here, None for that of each file's type. Raises UserError where auto means nothing."""
        if self.range == "auto":
            values = [found for _, found in self._each(read_values, "finding the range")]
            readable = [found for found in values if not isinstance(found, str)]
            return ranges.found(readable, str(self.root)) if readable else None
        return None if isinstance(self.range, str) else self.range

    def decode(self, folder: Path, limits: Limits | None) -> None:
        """Writes what `Decoded.read` reads into `folder`."""
        shape = (len(self.files), self.channels, self.size, self.size)
        images = np.lib.format.open_memmap(folder / IMAGES, "w+", np.uint8, shape)
        files, skipped, seen = [], {}, {}
        for file, found in self._each(lambda path: read_picture(path, self.size, self.channels, limits), "decoding"):
            if isinstance(found, str):
                skipped[file] = found
                continue
            images[len(files)] = found.pixels
            files.append(file)
            values = found.values
            if values.least <= values.largest:  # something can be seen
                seen[values.top] = seen.get(values.top, Seen(values.top)).also(values, limits)
        images.flush()
        del images  # Windows renames no folder with a file in it that is still mapped
        index = {"files": files, "skipped": skipped, "limits": limits, "seen": list(seen.values())}
        (folder / INDEX).write_text(json.dumps(index))

    def _each(self, read: Callable[[Path], Result], what: str) -> Iterator[tuple[str, Result]]:
        """Every file with what `read` makes of its path, in order."""
        with (
            ThreadPoolExecutor(os.cpu_count()) as pool,
            Bar(
                total=len(self.files), desc=what, unit=" images", delay=1
            ) as bar,  # second; a small set is done by then
        ):
            for start in range(0, len(self.files), _AHEAD):
                part = self.files[start : start + _AHEAD]
                for file, result in zip(part, pool.map(lambda file: read(self.root / file), part), strict=True):
                    bar.update()
                    yield file, result


@dataclass
class Decoded:
    """images: uint8 (N, C, H, W), one for each of `files`; skipped: file -> the reason; limits: None for those of each
    file's type; seen: the values in the files."""

    folder: Path
    images: np.ndarray
    files: list[str]
    skipped: dict[str, str]
    limits: Limits | None
    seen: list[Seen]

    @classmethod
    def read(cls, folder: Path) -> "Decoded":
        """Raises anything where a file is gone or damaged."""
        index = json.loads((folder / INDEX).read_text())
        # Copy on write: torch wants writable memory, and the file stays as it is.
        images = np.load(folder / IMAGES, mmap_mode="c")
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) < len(index["files"]):
            raise ValueError(f"{IMAGES} does not hold what {INDEX} says")
        limits = None if index["limits"] is None else tuple(index["limits"])
        seen = [Seen(*values) for values in index["seen"]]
        return cls(folder, images[: len(index["files"])], index["files"], index["skipped"], limits, seen)


def _status(path: str) -> str:
    try:
        stat = os.stat(path)
    except OSError:  # a dangling link
        stat = os.lstat(path)
    return f"{stat.st_dev}/{stat.st_ino}/{stat.st_size}/{stat.st_mtime_ns}/{stat.st_ctime_ns}"


def _digest(path: Path) -> str:
    if not path.is_file():
        return "not a file"
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    except OSError as error:
        return str(error.strerror)
    return digest.hexdigest()
