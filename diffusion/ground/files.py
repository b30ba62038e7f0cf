"""Atomic writing of files, and JSON that every parser accepts."""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# JSON cannot express these numbers; other parsers refuse Infinity and NaN, which Python writes.
_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_ALIKE = re.compile(r"('*)(-?inf|nan)\1")  # a string that looks like one of these is quoted


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it is renamed to `path` at the end, or removed on an error."""
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
    """Yields a temporary folder beside `path`, which must not exist; it is renamed to `path` at the
    end, or removed on an error. Windows renames it only if every file in it is closed."""
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
    """The folder of files that can be regenerated: $XDG_CACHE_HOME/diffusion, or ~/.cache/diffusion. Raises
    RuntimeError if the user has no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "diffusion"


def json_text(contents: Any, indent: int | None = 2) -> str:
    """`contents` as standard JSON: infinities and nan become the strings "inf", "-inf" and "nan"; a string that is one
    of these is quoted once more, as "'inf'"."""
    return json.dumps(_mapped(contents, _to_string), indent=indent, allow_nan=False)


def json_contents(text: str | bytes) -> Any:
    """The inverse of `json_text`: the strings "inf", "-inf" and "nan" become numbers. Raises ValueError if `text` is
    not JSON."""
    return _mapped(json.loads(text), _to_number)


def json_lines(text: bytes) -> list[dict[str, Any]]:
    """The objects of a file with one per line; other lines are skipped."""
    found = []
    for line in text.splitlines():
        try:
            found.append(dict(json_contents(line)))
        except (ValueError, TypeError):  # edited by hand
            continue
    return found


def write_json(path: Path | str, contents: Any) -> None:
    """Writes `contents` by `json_text`, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json_text(contents) + "\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """The contents written by `write_json`. Raises OSError if the file is missing and ValueError if it is not JSON."""
    return json_contents(Path(path).read_bytes())


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A tree of dicts and lists with `change` applied to its leaves."""
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
    """Makes `path` a hard link to `file`, atomically; a copy if the file system has no hard links."""
    temporary = _temporary(path)
    try:
        try:
            os.link(file, temporary)
        except OSError:
            shutil.copyfile(file, temporary)
            _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # a rename between two links of one file does nothing


def remove_remains(folder: Path) -> None:
    """Removes the temporary files of a killed process in `folder`; no other process may be writing there."""
    for file in folder.glob(".*.tmp"):
        file.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _sync(file: Path) -> None:
    """Returns when the contents of a file are on disk."""
    _flush(file, os.O_RDWR)  # Windows flushes only files opened for writing


def _sync_names(folder: Path) -> None:
    """The same for the entries of a folder, so that a rename survives a power failure. Not on Windows, which cannot
    open folders."""
    with suppress(OSError):
        _flush(folder, os.O_RDONLY)


def _flush(path: Path, how: int) -> None:
    descriptor = os.open(path, how)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
