"""The exception for user errors, conversions of other exceptions to it, and the warning class."""

import errno
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """An error that the user can correct. Its text is one line: what was wrong, what was expected, what to do.

    The commands print it and exit with code 2; in Python it is a ValueError.
    """


class Notice(UserWarning):
    """A one-line warning about something probably not intended; execution continues. The commands print it as
    `note:`."""


def show_notices(enabled: bool) -> None:
    """From now on a Notice is one line on stderr, without its position in the code; it is dropped unless `enabled`.
    Other warnings are shown as before."""
    show = getattr(warnings.showwarning, "others", warnings.showwarning)

    def one_line(message: Warning | str, category: type[Warning], *args: Any, **options: Any) -> None:
        if not issubclass(category, Notice):
            show(message, category, *args, **options)
        elif enabled:
            print(f"note: {message}", file=sys.stderr, flush=True)

    setattr(one_line, "others", show)  # noqa: B010 (functions declare no attributes)
    warnings.showwarning = one_line
    warnings.filterwarnings("default", category=Notice)


@contextmanager
def reading(path: str | Path, what: str) -> Iterator[None]:
    """Converts any exception that a damaged or malicious file causes in its reader to a UserError: it is not `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if memory_wanted(error) is not None:
            raise  # the file may be valid
        reason = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
        raise UserError(f"{path}: not {what} ({reason})") from error


# Messages of the CPU on every system, of CUDA and libraries based on it, of MPS. torch has classes for only some.
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED|bad_alloc", re.IGNORECASE)
_WANTED = re.compile(r"allocate ([\d.]+) ?([KMGTPE]i?B|bytes)")


def memory_wanted(error: BaseException | None) -> str | None:
    """The size of a failed memory allocation, `2.50 GiB` or empty if unknown; None if neither
    `error` nor its causes are a memory error."""
    while error is not None:
        short = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        if short or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
            found = _WANTED.search(str(error))
            if found is None:
                return ""
            return f"{int(found[1]) / 2**30:.3g} GiB" if found[2] == "bytes" else " ".join(found.groups())
        error = error.__cause__ or error.__context__
    return None
