"""The one exception that stands for a user's mistake, what makes one of others, and the one warning."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(ValueError):
    """A mistake the user can mend. Its text is one line: what was wrong, what was expected, what to do.

    The commands print it and exit with code 2; in Python it is a ValueError like any other.
    """


class Notice(UserWarning):
    """What the user may not have meant, in one line; the work goes on. The commands print it as a line of theirs."""


@contextmanager
def reading(path: str | Path, what: str) -> Iterator[None]:
    """Whatever a damaged, strange or hostile file makes its reader raise becomes a UserError: it is not `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
        raise UserError(f"{path}: not {what} ({reason})") from error
