"""The images of a run folder, and their encoding in a page of limited size."""

import base64
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from diffusion.report.commands import NEIGHBOURS
from diffusion.report.run import Run

FRAMES = 12  # positions of the slider, at most
_FILE = re.compile(r"(?:(?P<kind>.+)_)?epoch_(?P<epoch>\d{1,9})_step_(?P<step>\d{1,12})\.png")
_ORDER = ("", "strip", "loss", "x_0")
_TYPES = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp"}  # formats that are embedded unchanged
_QUALITY = 80  # of other images
_LEAST = 64  # pixels of its longer side
_LARGEST = 1600


@dataclass(frozen=True)
class Frame:
    """The images of one validation, by kind; the kind of the grid of samples is empty."""

    step: int
    epoch: int
    pictures: Mapping[str, Path]


def frames(run: Run, at_most: int = FRAMES) -> tuple[list[Frame], int]:
    """Validations with images, evenly spaced and including the last; and their total number."""
    found: dict[int, Frame] = {}
    for path in sorted((run.folder / "samples").glob("*epoch_*_step_*.png")):
        if name := _FILE.fullmatch(path.name):
            step, epoch = int(name["step"]), int(name["epoch"])
            known = found.get(step, Frame(step, epoch, {}))
            found[step] = Frame(step, epoch, {**known.pictures, name["kind"] or "": path})
    ordered = [_sorted(found[step]) for step in sorted(found)]
    return _spread(ordered, at_most), len(ordered)


def _sorted(frame: Frame) -> Frame:
    rank = {kind: number for number, kind in enumerate(_ORDER)}
    kinds = sorted(frame.pictures, key=lambda kind: (rank.get(kind, len(rank)), kind))
    return Frame(frame.step, frame.epoch, {kind: frame.pictures[kind] for kind in kinds})


def _spread(frames: Sequence[Frame], at_most: int) -> list[Frame]:
    if len(frames) <= at_most:
        return [*frames]
    return [frames[-1 - number * (len(frames) - 1) // max(at_most - 1, 1)] for number in range(at_most)][::-1]


def beginning(run: Run) -> dict[str, Path]:
    """Images that were drawn at the start of the run."""
    found = {"the first training images": run.folder / "samples" / "data.png", "schedule": run.folder / "schedule.png"}
    return {title: path for title, path in found.items() if path.exists()}


def neighbours(run: Run) -> Path | None:
    """The newest figure of samples with their nearest training images."""
    return _last(run.folder.glob(f"evaluation/{NEIGHBOURS}_*.png"))


def samplers(run: Run) -> Path | None:
    """The newest comparison of samplers."""
    measured = run.folder / "evaluation" / "samplers.png"
    return measured if measured.exists() else _last(run.folder.glob("generated/*/compare.png"))


def _last(paths: Iterable[Path]) -> Path | None:
    return max(paths, default=None, key=lambda path: (path.stat().st_mtime_ns, path.name))


def figure(run: Run, row: Mapping[str, object]) -> Path | None:
    """The figure of a result, in the folder of the results regardless of the path in the row."""
    known = {path.name: path for path in run.folder.glob("evaluation/*.png")}
    return known.get(Path(str(row.get("figure"))).name)


@dataclass
class Album:
    """Images as data URIs, by path. smaller: number of images that were reduced in size; unread: a line for each that
    does not fit or is not an image."""

    uris: dict[Path, str] = field(default_factory=dict)
    smaller: int = 0
    unread: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, paths: Iterable[Path], budget: int) -> "Album":
        """budget: total bytes of all URIs. The unused share of a small image is available to larger ones."""
        album, left = cls(), budget
        waiting = sorted({*paths}, key=_size)
        for number, path in enumerate(waiting):
            uri = album._add(path, left // (len(waiting) - number))
            left -= len(uri)
        return album

    def _add(self, path: Path, budget: int) -> str:
        try:
            data, kind, is_smaller = _encoded(path, budget * 3 // 4 - 64)
        except Exception as error:  # a damaged image may raise any exception
            self.unread.append(f"{path}: not an image ({type(error).__name__}: {error})")
            return ""
        if not data:
            self.unread.append(f"{path}: omitted, it does not fit in the page")
            return ""
        self.smaller += is_smaller
        self.uris[path] = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        return self.uris[path]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _encoded(path: Path, budget: int) -> tuple[bytes, str, bool]:
    """The bytes of an image, their type, and whether it was reduced; no bytes if it does not fit."""
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        if len(data) <= budget and image.format in _TYPES:
            image.verify()
            return data, _TYPES[image.format], False
        for smaller in _smaller(image.convert("RGB"), budget):
            return smaller, "webp", True
    return b"", "", False


def _smaller(image: Image.Image, budget: int) -> Iterator[bytes]:
    """Yields the first WebP that fits, if any: with lower quality, then with fewer pixels."""
    image.thumbnail((_LARGEST, _LARGEST))
    while max(image.size) >= _LEAST:
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=_QUALITY, method=0)
        taken = stream.tell()
        if taken <= budget:
            yield stream.getvalue()
        factor = min(0.8, 0.9 * math.sqrt(max(budget, 1) / taken))
        image = image.resize((max(1, int(image.width * factor)), max(1, int(image.height * factor))))
