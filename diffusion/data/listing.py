"""Which files below a folder are pictures, and what else lies there."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from diffusion.data.formats import SUFFIXES, is_picture
from diffusion.ground.errors import UserError

# Not opened to see what they are: captions and tables, which lie beside pictures by the million; and what holds another
# picture than a user means: raw files of cameras (TIFF with a thumbnail first), copies that programs leave.
_NEVER_OPENED = (".txt", ".caption", ".json", ".jsonl", ".csv", ".tsv", ".md", ".xml", ".yaml", ".yml", ".html", ".log")
_NEVER_OPENED += (".py", ".npy", ".npz", ".pt", ".pkl", ".parquet", ".zip", ".tar", ".gz")
_NEVER_OPENED += (".cr2", ".nef", ".nrw", ".arw", ".dng", ".orf", ".pef", ".srw", ".rw2", ".thm")
_NEVER_OPENED += ("~", ".bak", ".orig", ".tmp", ".part", ".crdownload")
# What storage systems put beside the files of their users: thumbnails, bins, marks.
_JUNK = ("@eadir", "__macosx", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", ".ds_store")
_JUNK += ("#recycle", "@recycle", "$recycle.bin", "lost+found", "system volume information")


@dataclass
class Listing:
    """What lies below a folder.

    pictures: paths relative to it, with "/", in alphabetical order.
    left_out: suffix, or what else it is -> number of files, or of folders that were not looked into.
    bare:     folders without a picture in them or below, the topmost of each, as "cats/old".
    """

    pictures: list[str]
    left_out: Counter[str]
    bare: list[str]


def by_content(folder: str, name: str) -> bool:
    """Whether a file is a picture, by what it holds; what has a picture's name may be a broken one."""
    lower = name.lower()
    return lower.endswith(SUFFIXES) or (not lower.endswith(_NEVER_OPENED) and is_picture(Path(folder, name)))


def listing(root: Path, accepts: Callable[[str, str], bool] = by_content, junk: tuple[str, ...] = _JUNK) -> Listing:
    """All below `root`. accepts: whether a file, given its folder and its name, is a picture; junk: names, in lower
    case, of what is passed over without a word. Raises UserError where `root` is no folder."""
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
    """ ".txt 20", the most frequent first."""
    return [f"{what} {count:,}" for what, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _walk(
    root: Path, junk: tuple[str, ...], on_error: Callable[[OSError], None]
) -> Iterator[tuple[str, str, list[str]]]:
    """Each folder, its path below `root` ("" or "cats/old"), and the names of its files and hidden folders.

    Links to folders come last: what lies below `root` twice is found where it is, and no circle of them is endless.
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
