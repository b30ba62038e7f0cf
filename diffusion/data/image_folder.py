"""Any folder of images, decoded once into a memory-mapped uint8 array that is kept for later runs."""

import errno
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from diffusion import random
from diffusion.data.base import ImageData
from diffusion.errors import UserError

# By content, whatever a file is called. No others are tried: Pillow hands an EPS file to Ghostscript, which runs it.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
BACKGROUND = "white"  # what shows through transparent pixels
_AHEAD = 256  # images decoded before they are written
_LISTED = 10  # broken images a message names

log = logging.getLogger(__name__)


class ImageFolder(ImageData):
    """All images below `path`, resized to `size` at their short side, cropped at the centre, grey or RGB by `channels`.

    The names of the top-level folders are the classes, where at least two of them hold images.

    Args (those of ImageData, and):
        val_fraction: part of the images kept for validation, at least one; the choice is always the same.
        on_broken:    "skip" leaves out images that cannot be read and says which; "error" refuses them.
        cache:        folder of the decoded images, by default $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion.
    """

    def __init__(self, *, val_fraction: float = 0.05, on_broken: str = "skip", cache: str | None = None, **common):
        super().__init__(**common)
        if not 0 < val_fraction < 1:
            raise UserError(f"dataset.val_fraction={val_fraction} must lie between 0 and 1")
        if on_broken not in ("skip", "error"):
            raise UserError(f"dataset.on_broken={on_broken} must be skip or error")
        if self.channels not in (1, 3):
            raise UserError(f"dataset.channels={self.channels} must be 1 (grey) or 3 (RGB)")
        self.val_fraction = val_fraction
        self.on_broken = on_broken
        self.cache = Path(cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "diffusion").expanduser()

    @cached_property
    def files(self) -> list[str]:
        """Images below `path`, relative to it, in a random order that is always the same: the first are for validation.

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
        return [images[i] for i in random.permutation(0, "image_folder", len(images))]

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        folders = sorted({file.split("/")[0] for file in self.files if "/" in file})
        return tuple(folders) if len(folders) > 1 else None

    def prepare_data(self) -> None:
        """Decodes the images, unless that has been done. Raises UserError for what `load` refuses, too."""
        skipped = self._decoded().skipped
        if skipped:
            log.warning("%s: left out %s", self.path, _list(skipped))

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        """Raises UserError where fewer than two images can be read, or any cannot and on_broken="error"."""
        decoded = self._decoded()
        n = len(decoded.files)
        n_val = min(max(1, round(self.val_fraction * n)), n - 1)
        rows = slice(n_val, None) if split == "train" else slice(n_val)
        label = {name: k for k, name in enumerate(self.classes or ())}
        labels = [label.get(file.split("/")[0], -1) for file in decoded.files[rows]]
        return torch.from_numpy(decoded.images[rows]), torch.tensor(labels)

    def _decoded(self) -> "Decoded":
        folder = self.cache / f"images-{self._fingerprint()}"
        if not folder.exists():
            self._decode(folder)
        decoded = Decoded.read(folder)
        if decoded.skipped and self.on_broken == "error":
            raise UserError(f"{self.path}: {_list(decoded.skipped)}: mend them, or set dataset.on_broken=skip")
        if len(decoded.files) < 2:
            raise UserError(
                f"{self.path}: {len(decoded.files)} of {len(self.files)} images can be read, but at least 2 are needed"
                f" (one is for validation). {_list(decoded.skipped)}"
            )
        return decoded

    def _fingerprint(self) -> str:
        """Changes with every file and with every setting that changes the decoded images."""
        digest = hashlib.blake2b(f"{self.channels}/{self.size}/{BACKGROUND}".encode(), digest_size=12)
        for file in self.files:
            path = Path(self.path).expanduser() / file
            stat = path.stat() if path.exists() else path.lstat()  # a dangling link
            digest.update(f"/{file}/{stat.st_size}/{stat.st_mtime_ns}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _decode(self, folder: Path) -> None:
        """Writes all images to a temporary folder, which becomes `folder` when it is whole."""
        shape = (len(self.files), self.channels, self.size, self.size)
        temporary = self._room_for(math.prod(shape))
        try:
            images = np.lib.format.open_memmap(temporary / "images.npy", "w+", np.uint8, shape)
            decoded = Decoded(images, files=[], skipped={})
            for file, result in self._read_all():
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
            self.cache.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.cache).free
            if free < n_bytes:
                raise OSError(errno.ENOSPC, f"{n_bytes / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free")
            return Path(tempfile.mkdtemp(prefix=".decoding-", dir=self.cache))
        except OSError as error:
            raise UserError(
                f"the decoded images cannot be kept in {self.cache} ({error.strerror}): set dataset.cache to another "
                "folder"
            ) from error

    def _read_all(self) -> Iterator[tuple[str, np.ndarray | str]]:
        """Every file with its image, uint8 (C, size, size), or with the reason why there is none."""
        root = Path(self.path).expanduser()
        with (
            ThreadPoolExecutor(os.cpu_count()) as pool,
            tqdm(total=len(self.files), desc="Decoding images", unit="images") as bar,
        ):
            for start in range(0, len(self.files), _AHEAD):
                files = self.files[start : start + _AHEAD]
                results = pool.map(lambda file: read_image(root / file, self.size, self.channels), files)
                for file, result in zip(files, results, strict=True):
                    bar.update()
                    yield file, result


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


def read_image(path: Path, size: int, channels: int) -> np.ndarray | str:
    """The (first) image of a file as uint8 (channels, size, size), or the reason why it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a file")  # a pipe would be waited for
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise ValueError(f"{image.width}x{image.height} is more than {Image.MAX_IMAGE_PIXELS:,} pixels")
            flat = _flatten(_to_8_bits(ImageOps.exif_transpose(image)), "L" if channels == 1 else "RGB")
    except Exception as error:  # decoders raise whatever they like on broken files
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    square = np.asarray(ImageOps.fit(flat, (size, size), Image.Resampling.BICUBIC))
    return square[None] if channels == 1 else square.transpose(2, 0, 1)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Pillow cuts 16-bit grey values off at 255 when it converts them; here they are scaled."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"values {values.min():g} to {values.max():g} have no known range")
    return Image.fromarray((values / 257).round().astype(np.uint8))


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Any 8-bit image as `mode` ("L" or "RGB"), transparency over the background."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    return image.convert("RGB").convert(mode)


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
