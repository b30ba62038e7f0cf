"""Writing files so that a reader never meets half of one, and JSON that every reader takes."""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# JSON cannot express these numbers; what Python writes instead, Infinity and NaN, other readers refuse.
_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_ALIKE = re.compile(r"('*)(-?inf|nan)\1")  # a string that looks like one of these gets its own quotes


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what was written there becomes `path` in one rename, or nothing does."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync_names(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`, which must not exist; what was written there becomes `path` in one
    rename, or nothing does. Every file in it must be closed by then, or Windows does not rename it."""
    temporary = _temporary(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for inside in temporary.rglob("*"):
            (_sync_names if inside.is_dir() else _sync)(inside)
        _sync_names(temporary)
        os.rename(temporary, path)
        _sync_names(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cache_folder() -> Path:
    """For what can be made again: $XDG_CACHE_HOME/diffusion, or ~/.cache/diffusion. Raises RuntimeError where the user
    has no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "diffusion"


def json_text(contents: Any, indent: int | None = 2) -> str:
    """`contents` as JSON of the standard: infinities and nan become the strings "inf", "-inf" and "nan"; a text that is
    one of these words becomes "'inf'"."""
    return json.dumps(_mapped(contents, _to_string), indent=indent, allow_nan=False)


def json_contents(text: str | bytes) -> Any:
    """What `json_text` made `text` from: the strings "inf", "-inf" and "nan" are numbers again. Raises ValueError for
    what is no JSON."""
    return _mapped(json.loads(text), _to_number)


def json_lines(text: bytes) -> list[dict[str, Any]]:
    """The objects of a file with one a line; a line that is none is left out."""
    found = []
    for line in text.splitlines():
        try:
            found.append(dict(json_contents(line)))
        except (ValueError, TypeError):  # edited by hand
            continue
    return found


def write_json(path: Path | str, contents: Any) -> None:
    """Writes `contents` by `json_text`, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(json_text(contents) + "\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """What `write_json` wrote. Raises OSError where there is no such file and ValueError for what is no JSON."""
    return json_contents(Path(path).read_bytes())


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A tree of dicts and lists with its leaves changed."""
    if isinstance(value, Mapping):
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(each, change) for each in value]
    return change(value)


def _to_string(value: Any) -> Any:
    if isinstance(value, str) and _ALIKE.fullmatch(value):
        return f"'{value}'"
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _to_number(value: Any) -> Any:
    if isinstance(value, str) and _ALIKE.fullmatch(value):
        return _NUMBERS[value] if value in _NUMBERS else value[1:-1]
    return value


def give_name(file: Path, path: Path) -> None:
    """Makes `path` another name of `file`, in one rename; a copy where the file system has no hard links."""
    temporary = _temporary(path)
    try:
        try:
            os.link(file, temporary)
        except OSError:
            shutil.copyfile(file, temporary)
            _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # renaming a file to another of its own names does nothing


def remove_remains(folder: Path) -> None:
    """Removes what a process that was killed while it wrote has left in `folder`; no other may be writing there."""
    for file in folder.glob(".*.tmp"):
        file.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _sync(file: Path) -> None:
    """Returns when what was written to a file is on the disk."""
    _flush(file, os.O_RDWR)  # Windows flushes only what was opened to be written


def _sync_names(folder: Path) -> None:
    """The same of the names in a folder, so that a rename outlives a power cut, where the system can: Windows opens no
    folder."""
    with suppress(OSError):
        _flush(folder, os.O_RDONLY)


def _flush(path: Path, how: int) -> None:
    descriptor = os.open(path, how)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
