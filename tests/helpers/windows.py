"""What Windows refuses of files, in imitation: for tests of what is written there."""

import errno
import os
import stat
from pathlib import Path


def imitate(monkeypatch):
    """From here on `os` refuses what it refuses on Windows: to flush a file that was opened to be read, to open a
    folder, and to rename, replace or remove what this process has open or mapped."""
    fcntl_, real = _fcntl(), {name: getattr(os, name) for name in ("fsync", "open", "rename", "replace", "unlink")}

    def fsync(descriptor):
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if fcntl_.fcntl(number, fcntl_.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real["fsync"](descriptor)

    def open_(path, flags, *args, **kwargs):
        descriptor = real["open"](path, flags, *args, **kwargs)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) and "dir_fd" not in kwargs:
            os.close(descriptor)
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return descriptor

    def rename(source, target, **kwargs):
        if os.path.exists(target):
            raise FileExistsError(errno.EEXIST, "File exists", str(source), None, str(target))
        _refuse_what_is_open(source)
        real["rename"](source, target, **kwargs)

    def replace(source, target, **kwargs):
        _refuse_what_is_open(source, target)
        real["replace"](source, target, **kwargs)

    def unlink(path, **kwargs):
        _refuse_what_is_open(path)
        real["unlink"](path, **kwargs)

    for name, imitated in [("fsync", fsync), ("open", open_), ("rename", rename), ("replace", replace)]:
        monkeypatch.setattr(os, name, imitated)
    monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.setattr(os, "remove", unlink)


def _fcntl():
    import fcntl  # not there on Windows, which needs no imitation

    return fcntl


def _refuse_what_is_open(*paths):
    """PermissionError where this process holds a file at, or below, one of the paths."""
    held = {_link(entry) for entry in Path("/proc/self/fd").iterdir()}
    held |= {line.split(maxsplit=5)[5] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    for path in map(os.path.realpath, paths):
        if any(file == path or file.startswith(f"{path}{os.sep}") for file in held):
            raise PermissionError(errno.EACCES, "The process cannot access the file because it is being used", path)


def _link(entry):
    try:
        return os.readlink(entry)
    except OSError:  # of the listing itself
        return ""
