"""Parsing of class names on the command line. The text is raw: `true`, `1.0` and `1e3` may be names."""

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal

from diffusion.config.suggestions import items, suggest
from diffusion.ground.errors import UserError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LISTED = 50  # at most so many classes in a message


def read(key: str, text: str, names: Sequence[str]) -> list[int] | None:
    """The labels that `text` specifies: a class, a list `[a,b]`, or `all`; None if it is `null`.

    A class is given by its name; if names are numbers, by its number, so that 1 is the folder 001; if none is a number,
    by its index, from 0. A name that contains a comma is quoted within a list. key: its name on the command line;
    names: of the classes of the model. Raises UserError for an unknown class.
    """
    if text == "null" and text not in names:
        return None
    label = _label(text, names)
    if label is not None:
        return [label]
    if text == "all":
        return list(range(len(names)))
    if not (text.startswith("[") and text.endswith("]")):
        raise UserError(_unknown(key, text, names))
    asked = items(text[1:-1])
    labels = []
    for item in asked:
        if (label := _label(item, names)) is None:
            raise UserError(_unknown(key, item, names))
        labels.append(label)
    if not labels:
        raise UserError(f"{key}={text}: the list is empty; {_known(names)}")
    return labels


def _label(text: str, names: Sequence[str]) -> int | None:
    plain = [unicodedata.normalize("NFC", name) for name in names]  # file systems encode ü in two ways
    typed = unicodedata.normalize("NFC", text)
    for name in (typed, typed.strip(), _unquoted(typed.strip())):
        if name in plain:
            return plain.index(name)
    if not _NUMBER.fullmatch(text.strip()):
        return None
    number = Decimal(text.strip())
    numbers = [Decimal(name) if _NUMBER.fullmatch(name) else None for name in names]
    if any(each is not None for each in numbers):
        return numbers.index(number) if numbers.count(number) == 1 else None
    return int(number) if 0 <= number < len(names) and number == int(number) else None


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _unknown(key: str, text: str, names: Sequence[str]) -> str:
    several = f"; a list is written {key}=[a,b]" if "," in text else ""
    return f"{key}={text}: no such class; {_known(names)}{several or suggest(text, names)}"


def numbered(names: Sequence[str]) -> str:
    """The names for a message, each with its number."""
    known = [f"{k} ({name})" for k, name in enumerate(names[:_LISTED])]
    return ", ".join(known + [f"... ({len(names)} in all)"] * (len(names) > _LISTED))


def _known(names: Sequence[str]) -> str:
    numeric = any(map(_NUMBER.fullmatch, names))
    shown = [f"'{name}'" if "," in name else name for name in names[:_LISTED]]
    known = [name if numeric else f"{index} ({name})" for index, name in enumerate(shown)]
    known += [f"... ({len(names)} in all)"] * (len(names) > _LISTED)
    return f"choose among {', '.join(known)}, or all"
