"""Finds the image files below a folder, and counts the other files."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from diffusion.data.formats import SUFFIXES, is_picture
from diffusion.ground.errors import UserError

# Never opened to detect their format: captions and tables, which may accompany millions of images, and files that hold
# another image than intended: camera raw files (TIFF with a thumbnail first), backup copies of programs.
_NEVER_OPENED = (".txt", ".caption", ".json", ".jsonl", ".csv", ".tsv", ".md", ".xml", ".yaml", ".yml", ".html", ".log")
_NEVER_OPENED += (".py", ".npy", ".npz", ".pt", ".pkl", ".parquet", ".zip", ".tar", ".gz")
_NEVER_OPENED += (".cr2", ".nef", ".nrw", ".arw", ".dng", ".orf", ".pef", ".srw", ".rw2", ".thm")
_NEVER_OPENED += ("~", ".bak", ".orig", ".tmp", ".part", ".crdownload")
# Created by operating and storage systems: thumbnails, recycle bins, markers.
_JUNK = ("@eadir", "__macosx", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", ".ds_store")
_JUNK += ("#recycle", "@recycle", "$recycle.bin", "lost+found", "system volume information")


@dataclass
class Listing:
    """The content of a folder and its subfolders.

    pictures: paths of the images relative to it, with "/", in alphabetical order.
    left_out: suffix, or another description -> number of files, or of folders that were not read.
    bare:     folders without an image in them or below, only the topmost of each tree, such as "cats/old".
    """

    pictures: list[str]
    left_out: Counter[str]
    bare: list[str]


def by_content(folder: str, name: str) -> bool:
    """Whether a file is an image: by its suffix (it may be broken), otherwise by its content."""
    lower = name.lower()
    return lower.endswith(SUFFIXES) or (not lower.endswith(_NEVER_OPENED) and is_picture(Path(folder, name)))


def listing(root: Path, accepts: Callable[[str, str], bool] = by_content, junk: tuple[str, ...] = _JUNK) -> Listing:
    """The listing of `root`. accepts: whether a file, given its folder and its name, is an image; junk: names to
    ignore without counting, in lower case. Raises UserError if `root` is not a folder."""
    if not root.is_dir():
        raise UserError(f"dataset.path={root} is not a folder: set it to a folder of images")
    pictures, left_out, folders, locked = [], Counter(), set(), []
    for folder, below, names in _walk(root, junk, locked.append):
        folders.add(below)
        for name in names:
            if name.startswith("."):
                left_out["hidden"] += 1
            elif accepts(folder, name):
                pictures.append(f"{below}/{name}".lstrip("/"))
            else:
                left_out[os.path.splitext(name)[1].lower() or "without a suffix"] += 1
    if locked:
        left_out["folders that cannot be read"] = len(locked)
    return Listing(sorted(pictures), left_out, _bare(folders, pictures))


def counted(counts: Counter[str]) -> list[str]:
    """Items such as ".txt 20", the most frequent first."""
    return [f"{what} {count:,}" for what, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _walk(
    root: Path, junk: tuple[str, ...], on_error: Callable[[OSError], None]
) -> Iterator[tuple[str, str, list[str]]]:
    """Each folder, its path below `root` ("" or "cats/old"), and the names of its files and hidden folders.

    Links to folders come last: a folder that is reachable twice is found at its real path, and cycles end.
    """
    seen, starts = set(), [str(root)]
    while starts:
        for folder, folders, names in os.walk(starts.pop(0), onerror=on_error):
            stat = os.stat(folder)
            if (stat.st_dev, stat.st_ino) in seen:
                folders.clear()
                continue
            seen.add((stat.st_dev, stat.st_ino))
            names += [name for name in folders if name.startswith(".")]
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name.lower() not in junk)
            starts += [path for name in folders if os.path.islink(path := os.path.join(folder, name))]
            below = os.path.relpath(folder, root).replace(os.sep, "/")
            yield (
                folder,
                below.removeprefix("."),
                [name for name in names if name.lower() not in junk and not name.startswith("._")],
            )


def _bare(folders: set[str], pictures: list[str]) -> list[str]:
    full = {""}
    for folder in {picture.rpartition("/")[0] for picture in pictures}:
        while folder not in full:
            full.add(folder)
            folder = folder.rpartition("/")[0]
    return sorted(folder for folder in folders - full if folder.rpartition("/")[0] in full)
