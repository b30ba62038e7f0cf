"""The pictures of a run folder, and their bytes inside a page that may have so many."""

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

FRAMES = 12  # steps to go through by the slider, at most
_FILE = re.compile(r"(?:(?P<kind>.+)_)?epoch_(?P<epoch>\d{1,9})_step_(?P<step>\d{1,12})\.png")
_ORDER = ("", "strip", "loss", "x_0")
_TYPES = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp"}  # of a file that is taken as it is
_QUALITY = 80  # of a picture that is not
_LEAST = 64  # pixels of its longer side
_LARGEST = 1600


@dataclass(frozen=True)
class Frame:
    """The pictures of one validation, by kind: the grid of samples has none."""

    step: int
    epoch: int
    pictures: Mapping[str, Path]


def frames(run: Run, at_most: int = FRAMES) -> tuple[list[Frame], int]:
    """Validations with pictures, evenly spread, the last among them; and how many there are."""
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
    """What was drawn when the run began."""
    found = {"the first training images": run.folder / "samples" / "data.png", "schedule": run.folder / "schedule.png"}
    return {title: path for title, path in found.items() if path.exists()}


def neighbours(run: Run) -> Path | None:
    """The newest sheet of samples beside their nearest training images."""
    return _last(run.folder.glob(f"evaluation/{NEIGHBOURS}_*.png"))


def samplers(run: Run) -> Path | None:
    """The newest picture of samplers beside each other."""
    measured = run.folder / "evaluation" / "samplers.png"
    return measured if measured.exists() else _last(run.folder.glob("generated/*/compare.png"))


def _last(paths: Iterable[Path]) -> Path | None:
    return max(paths, default=None, key=lambda path: (path.stat().st_mtime_ns, path.name))


def figure(run: Run, row: Mapping[str, object]) -> Path | None:
    """The picture of a result, which lies beside it, whatever path the row says."""
    known = {path.name: path for path in run.folder.glob("evaluation/*.png")}
    return known.get(Path(str(row.get("figure"))).name)


@dataclass
class Album:
    """Pictures as data URIs, by path. smaller: how many were made smaller to find room; unread: a line for each that
    has no place, or is no picture."""

    uris: dict[Path, str] = field(default_factory=dict)
    smaller: int = 0
    unread: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, paths: Iterable[Path], room: int) -> "Album":
        """room: bytes of all URIs together. What a small picture leaves of its share is for the larger ones."""
        album, left = cls(), room
        waiting = sorted({*paths}, key=_size)
        for number, path in enumerate(waiting):
            uri = album._add(path, left // (len(waiting) - number))
            left -= len(uri)
        return album

    def _add(self, path: Path, room: int) -> str:
        try:
            data, kind, is_smaller = _encoded(path, room * 3 // 4 - 64)
        except Exception as error:  # a damaged picture may raise anything
            self.unread.append(f"{path}: no picture ({type(error).__name__}: {error})")
            return ""
        if not data:
            self.unread.append(f"{path}: left out, there is no room for it")
            return ""
        self.smaller += is_smaller
        self.uris[path] = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        return self.uris[path]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _encoded(path: Path, room: int) -> tuple[bytes, str, bool]:
    """The bytes of a picture, their type, and whether they are fewer than in the file; no bytes where it cannot be."""
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        if len(data) <= room and image.format in _TYPES:
            image.verify()
            return data, _TYPES[image.format], False
        for smaller in _smaller(image.convert("RGB"), room):
            return smaller, "webp", True
    return b"", "", False


def _smaller(image: Image.Image, room: int) -> Iterator[bytes]:
    """Yields the first WebP that fits, if any does: of less detail, then of fewer pixels."""
    image.thumbnail((_LARGEST, _LARGEST))
    while max(image.size) >= _LEAST:
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=_QUALITY, method=0)
        taken = stream.tell()
        if taken <= room:
            yield stream.getvalue()
        factor = min(0.8, 0.9 * math.sqrt(max(room, 1) / taken))
        image = image.resize((max(1, int(image.width * factor)), max(1, int(image.height * factor))))
