"""Decoded images on disk: a memory-mapped uint8 array and its index."""

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

from diffusion.data import value_range
from diffusion.data.decoding import BACKGROUND, VERSION, Limits, read_picture, read_values
from diffusion.data.value_range import Range, Seen
from diffusion.ground.bar import Bar

IMAGES, INDEX = "images.npy", "index.json"
LOCATION = "of-"
_HAS_TIME_OF_CHANGE = os.name != "nt"
_AHEAD = 256  # files that are read ahead

Result = TypeVar("Result")


class Request(NamedTuple):
    """A request to decode `files` below `root` to size x size pixels."""

    root: Path
    files: Sequence[str]
    size: int
    channels: int
    range: Range

    @property
    def n_bytes(self) -> int:
        return math.prod((len(self.files), self.channels, self.size, self.size))

    def key(self, stamps: Iterable[str]) -> str:
        """Changes with the stamp of any file and with all settings that affect the decoded images, including the Pillow
        version, which affects pixels and readable files."""
        settings = [VERSION, PIL.__version__, BACKGROUND, self.size, self.channels, self.range]
        digest = hashlib.blake2b(repr(settings).encode(), digest_size=12)
        for file, stamp in zip(self.files, stamps, strict=True):
            digest.update(f"\n{file}\n{stamp}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def location(self) -> str:
        """A key of the folder and the settings, independent of the content of the folder."""
        settings = str(self.root.resolve()), self.size, self.channels, self.range
        return LOCATION + hashlib.blake2b(repr(settings).encode(errors="surrogateescape"), digest_size=12).hexdigest()

    def status(self) -> Iterable[str]:
        """Stamps without reading the files. Programs that unpack archives set the modification time of files; inode and
        change time cannot be set."""
        if not _HAS_TIME_OF_CHANGE:
            return self.contents()
        return (_status(os.path.join(self.root, file)) for file in self.files)

    def contents(self) -> list[str]:
        """Stamps that are the same for a copy in another folder."""
        return [stamp for _, stamp in self._each(_digest, "hashing")]

    def limits(self) -> Limits | None:
        """The limits of the range, None for those of each file's type. Raises UserError if auto is undefined."""
        if self.range == "auto":
            values = [found for _, found in self._each(read_values, "finding the range")]
            readable = [found for found in values if not isinstance(found, str)]
            return value_range.found(readable, str(self.root)) if readable else None
        return None if isinstance(self.range, str) else self.range

    def decode(self, folder: Path, limits: Limits | None) -> None:
        """Writes into `folder` the files that `Decoded.read` reads."""
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
            if values.least <= values.largest:  # some pixels are not transparent
                seen[values.top] = seen.get(values.top, Seen(values.top)).updated(values, limits)
        images.flush()
        del images  # Windows cannot rename a folder that contains a mapped file
        index = {"files": files, "skipped": skipped, "limits": limits, "seen": list(seen.values())}
        (folder / INDEX).write_text(json.dumps(index))

    def _each(self, read: Callable[[Path], Result], what: str) -> Iterator[tuple[str, Result]]:
        """Every file with the result of `read` for its path, in order."""
        with (
            ThreadPoolExecutor(os.cpu_count()) as pool,
            Bar(total=len(self.files), desc=what, unit=" images", delay=1) as bar,  # in seconds: no bar for a small set
        ):
            for start in range(0, len(self.files), _AHEAD):
                part = self.files[start : start + _AHEAD]
                for file, result in zip(part, pool.map(lambda file: read(self.root / file), part), strict=True):
                    bar.update()
                    yield file, result


@dataclass
class Decoded:
    """images: uint8 (N, C, H, W), one per entry of `files`; skipped: file -> reason; limits: None for those of each
    file's type; seen: statistics of the values in the files."""

    folder: Path
    images: np.ndarray
    files: list[str]
    skipped: dict[str, str]
    limits: Limits | None
    seen: list[Seen]

    @classmethod
    def read(cls, folder: Path) -> "Decoded":
        """May raise any exception if a file is missing or damaged."""
        index = json.loads((folder / INDEX).read_text())
        # Copy on write: torch requires writable memory, and the file is not modified.
        images = np.load(folder / IMAGES, mmap_mode="c")
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) < len(index["files"]):
            raise ValueError(f"{IMAGES} does not match {INDEX}")
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
