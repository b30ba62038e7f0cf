"""Decoded images, kept on the disk for later runs: a memory-mapped uint8 array and an index of its files."""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusion.bar import Bar
from diffusion.data.decoding import BACKGROUND, read_image
from diffusion.errors import UserError

_AHEAD = 256  # images decoded before they are written


@dataclass
class Decoded:
    """What the cache holds. images: uint8 (N or more, C, H, W), one for each of `files`; skipped: file -> reason."""

    images: np.ndarray
    files: list[str]
    skipped: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> "Decoded":
        index = json.loads((folder / "index.json").read_text())
        # Copy on write: torch wants writable memory, and the file stays as it is.
        images = np.load(folder / "images.npy", mmap_mode="c")
        return cls(images[: len(index["files"])], **index)

    def write_index(self, folder: Path) -> None:
        (folder / "index.json").write_text(json.dumps({"files": self.files, "skipped": self.skipped}))


class DecodedCache:
    """Where decoded images are kept.

    folder: by default $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion.
    """

    def __init__(self, folder: str | None = None):
        default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "diffusion"
        self.folder = Path(folder or default).expanduser()

    def decoded(self, root: Path, files: Sequence[str], size: int, channels: int) -> "Decoded":
        """The images of `files` below `root`, of size x size pixels, decoded unless that has been done. Raises
        UserError where there is no room for them."""
        folder = self.folder / f"images-{_fingerprint(root, files, size, channels)}"
        if not folder.exists():
            self._decode(folder, root, files, size, channels)
        return Decoded.read(folder)

    def _decode(self, folder: Path, root: Path, files: Sequence[str], size: int, channels: int) -> None:
        """Writes all images to a temporary folder, which becomes `folder` when it is whole."""
        shape = (len(files), channels, size, size)
        temporary = self._room_for(math.prod(shape))
        try:
            images = np.lib.format.open_memmap(temporary / "images.npy", "w+", np.uint8, shape)
            decoded = Decoded(images, files=[], skipped={})
            for file, result in _read_all(root, files, size, channels):
                if isinstance(result, str):
                    decoded.skipped[file] = result
                else:
                    images[len(decoded.files)] = result
                    decoded.files.append(file)
            images.flush()
            decoded.write_index(temporary)
            if not folder.exists():  # another process may have been faster
                temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _room_for(self, n_bytes: int) -> Path:
        """A new folder in the cache, on a disk with so much room: a full one would kill the process that writes to a
        memory map, without a word."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if free < n_bytes:
                raise OSError(errno.ENOSPC, f"{n_bytes / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free")
            return Path(tempfile.mkdtemp(prefix=".decoding-", dir=self.folder))
        except OSError as error:
            raise UserError(
                f"the decoded images cannot be kept in {self.folder} ({error.strerror}): set dataset.cache to another "
                "folder"
            ) from error


def _fingerprint(root: Path, files: Sequence[str], size: int, channels: int) -> str:
    """Changes with every file and with every setting that changes the decoded images."""
    digest = hashlib.blake2b(f"{channels}/{size}/{BACKGROUND}".encode(), digest_size=12)
    for file in files:
        path = root / file
        stat = path.stat() if path.exists() else path.lstat()  # a dangling link
        digest.update(f"/{file}/{stat.st_size}/{stat.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _read_all(root: Path, files: Sequence[str], size: int, channels: int) -> Iterator[tuple[str, np.ndarray | str]]:
    """Every file with its image, uint8 (C, size, size), or with the reason why there is none."""
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        Bar(total=len(files), desc="decoding", unit=" images") as bar,
    ):
        for start in range(0, len(files), _AHEAD):
            part = files[start : start + _AHEAD]
            results = pool.map(lambda file: read_image(root / file, size, channels), part)
            for file, result in zip(part, results, strict=True):
                bar.update()
                yield file, result
