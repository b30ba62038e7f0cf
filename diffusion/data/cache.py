"""The cache of decoded images for later runs."""

import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from diffusion.data.decoded import IMAGES, INDEX, LOCATION, Decoded, Request
from diffusion.data.decoding import Limits
from diffusion.data.value_range import Range
from diffusion.ground.errors import UserError
from diffusion.ground.files import cache_folder

try:
    import fcntl
except ImportError:  # Windows, where a folder that contains a mapped file cannot be renamed, and so not removed
    fcntl = None

_SHARE = 0.1  # maximum share of the disk; the least recently used entries are removed first
_UNFINISHED = ".decoding-"
_LOGGED = 10e6  # bytes; smaller removals are not logged
_KEY = re.compile(f"({LOCATION})?[0-9a-f]{{24}}")
_OLD_ENTRY = re.compile("images-[0-9a-f]{24}")  # the names of earlier versions

log = logging.getLogger(__name__)


class DecodedCache:
    """Folders images-*, each with decoded images and their keys, stored as names of empty files. One key is that of the
    status of the source files, which needs no reading; another is that of their contents, which is the same for a
    copied or moved folder.

    folder: by default $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion.
    """

    def __init__(self, folder: str | None = None):
        try:
            self.folder = Path(folder).expanduser() if folder else cache_folder()
        except RuntimeError as error:  # no home directory
            raise UserError(f"no cache folder for decoded images ({error}): set dataset.cache") from error
        self._held: IO | None = None

    def decoded(self, root: Path, files: Sequence[str], size: int, channels: int, range: Range) -> Decoded:
        """The images of `files` below `root`, of size x size pixels, decoded unless they are cached. Raises UserError
        if the disk is too full, or if range="auto" is undefined."""
        request = Request(root, files, size, channels, range)
        status = request.key(request.status())
        found = self._find(status)
        if found is None:
            contents = request.contents()
            found = self._find(request.key(contents)) or self._decode(request, contents)
            _mark(found.folder, status)
        return found

    def _find(self, key: str) -> Decoded | None:
        """The entry with `key`. Damaged entries are removed, to be decoded again."""
        for entry in [mark.parent for mark in self.folder.glob(f"images-*/{key}")]:
            try:
                found = Decoded.read(entry)
                held = _hold(entry)
            except Exception as error:  # truncated files may raise any exception
                log.warning("%s is damaged (%s: %s): its images are decoded again", entry, type(error).__name__, error)
                _remove(entry, even_held=True)
                continue
            self._held = held
            with suppress(OSError):
                os.utime(entry)  # the time of its last use
            return found
        return None

    def _decode(self, request: Request, contents: Sequence[str]) -> Decoded:
        limits = request.limits()
        settled = request._replace(range=limits or "container").key(contents)  # auto is replaced by two numbers
        found = self._find(settled)
        if found is None:
            try:
                entry, self._held = self._write(request, limits, settled)
            except OSError as error:
                raise UserError(
                    f"the decoded images cannot be kept in {self.folder} ({error.strerror}): set dataset.cache to "
                    "another folder"
                ) from error
            found = Decoded.read(entry)
        _mark(found.folder, request.key(contents))
        return found

    def _write(self, request: Request, limits: Limits | None, key: str) -> tuple[Path, IO | None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_room(request)
        folder, held = self._new_folder()
        try:
            request.decode(folder, limits)
            _mark(folder, key)
            _mark(folder, request.location())
            return folder.rename(folder.with_name(folder.name.replace(_UNFINISHED, "images-"))), held
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _new_folder(self) -> tuple[Path, IO | None]:
        """A new folder, and the file that holds it until closed."""
        while True:
            folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.folder))
            with suppress(FileNotFoundError):  # another process has removed it as unfinished
                (folder / IMAGES).touch()
                held = _hold(folder)
                if (folder / IMAGES).exists():
                    return folder, held

    def _make_room(self, request: Request) -> None:
        """Raises OSError if there is too little space: writing to a memory map on a full disk kills the process without
        a message."""
        freed = self._clear(request)
        if freed > _LOGGED:
            log.warning("removed %.2f GB of old decoded images from %s", freed / 1e9, self.folder)
        free = shutil.disk_usage(self.folder).free
        if free < request.n_bytes:
            raise OSError(errno.ENOSPC, f"{request.n_bytes / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free")

    def _clear(self, request: Request) -> int:
        """Removes unfinished entries of killed processes, entries of an earlier state of the same folder, entries of
        earlier versions, and the least recently used ones while there is too little space. Returns the freed bytes."""
        freed = sum(map(_remove, self.folder.glob(f"{_UNFINISHED}*")))
        entries = sorted(filter(_is_ours, self.folder.glob("images-*")), key=_used)
        disk = shutil.disk_usage(self.folder)
        excess = max(sum(map(_size, entries)) + request.n_bytes - int(_SHARE * disk.total), request.n_bytes - disk.free)
        for entry in entries:
            changed = (entry / request.location()).exists() or _OLD_ENTRY.fullmatch(entry.name)
            if changed or excess > 0:
                size = _remove(entry)
                freed, excess = freed + size, excess - size
        return freed


def _mark(entry: Path, key: str) -> None:
    with suppress(OSError):  # a read-only cache
        (entry / key).touch()


def _is_ours(folder: Path) -> bool:
    """Whether a folder contains only files of the cache: a folder of the user may have a similar name, such as
    images-train."""
    with suppress(OSError):
        names = {file.name for file in folder.iterdir()}
        keys = {name for name in names if _KEY.fullmatch(name)}
        named = folder.name.startswith(_UNFINISHED) or _OLD_ENTRY.fullmatch(folder.name)
        return bool(keys or named) and names - keys <= {IMAGES, INDEX}
    return False


def _used(entry: Path) -> float:
    """The time of the last use, in seconds; 0 if another process has removed the entry."""
    with suppress(OSError):
        return entry.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    with suppress(OSError):
        return sum(file.stat().st_size for file in folder.iterdir())
    return 0


def _hold(folder: Path) -> IO | None:
    """Prevents other processes from removing `folder` until the returned file is closed or this process ends."""
    if fcntl is None:
        return None
    file = open(folder / IMAGES, "rb")  # noqa: SIM115
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _is_held(folder: Path) -> bool:
    if fcntl is None:
        return False
    try:
        with open(folder / IMAGES, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # held, or a file system without locks, where this is unknown
        return True
    return False


def _remove(folder: Path, even_held: bool = False) -> int:
    """Removes a folder of the cache, unless a process holds it. Returns the freed bytes."""
    gone = folder.with_name(f"{_UNFINISHED}{folder.name}")
    try:
        if not _is_ours(folder) or (not even_held and _is_held(folder)):
            return 0
        size = _size(folder)
        folder.rename(gone)
    except OSError:  # another process has removed it, or it is in use on Windows
        return 0
    shutil.rmtree(gone, ignore_errors=True)
    return size
