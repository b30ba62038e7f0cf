"""Text typed by a user: the parts of a list, and suggestions for a mistyped name."""

import difflib
import re
from collections.abc import Iterable

_ITEM = re.compile(r"""\s*(\[[^]]*]|'[^']*'|"[^"]*"|[^,]*?)\s*(?:,|$)""")


def items(text: str) -> list[str]:
    """The parts of a value between its commas, except those within quotes or brackets."""
    return _ITEM.findall(text)[:-1]  # the last is what is left at the end, nothing


def suggest(typed: str, names: Iterable[str]) -> str:
    """'; did you mean ...?', or nothing. Names are compared as a whole, and by the part after the last dot."""
    names = sorted(names)
    last = typed.rpartition(".")[2]
    ends = {}
    for name in names:
        ends.setdefault(name.rpartition(".")[2], []).append(name)
    alike = ends.get(last) or difflib.get_close_matches(typed, names, n=1, cutoff=0.7)
    for end in [] if alike else difflib.get_close_matches(last, ends, n=1, cutoff=0.7):
        alike = ends[end]
    return f"; did you mean {' or '.join(alike[:3])}?" if alike else ""
