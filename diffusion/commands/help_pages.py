"""Help pages, made from the docstrings of the commands and the comments of the yaml files."""

import ast
import itertools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from diffusion.commands import options
from diffusion.config import conf_folders
from diffusion.config.python_source import definition
from diffusion.config.registry import NAMED, TARGET
from diffusion.config.signatures import docstrings, parameters
from diffusion.runs.groups import Group, groups_of, root_files, several

_LINE = re.compile(r"^(?P<space> *)(?P<key>[\w.]+):(?P<value>[^#]*?)(?:\s+#\s*(?P<comment>.*))?$")
_NONE = re.compile(r"\bNone\b")  # written `null` on the command line
_WIDTH, _COLUMN = 120, 30


def overview() -> str:
    """The commands, each with the first line of its help page."""
    lines = ["usage: python -m diffusion COMMAND [OPTION] [KEY=VALUE] ...", "", "commands:"]
    for name, path in conf_folders.commands().items():
        lines.append(f"  {name:<{_COLUMN - 2}}{documentation(path).partition(chr(10))[0]}")
    return "\n".join([*lines, "", "python -m diffusion COMMAND --help shows its keys."])


def documentation(path: str) -> str:
    """The docstring of the module of an import path, without importing it; if there is none, that of the function."""
    found = definition(path)
    of_module = ast.get_docstring(ast.parse(found.module.file.read_text(encoding="utf-8")))
    return of_module or next(iter(docstrings(path)), "")


def help_page(command: str) -> str:
    """Usage, examples, keys, every group with its choices, and options."""
    groups = groups_of(command)
    lines = [documentation(conf_folders.commands()[command]).rstrip(), "", "keys:"]
    for key, meaning in keys(command).items():
        lines += _entry(key, meaning)
    open_groups = [group for group in groups.values() if len(group.choices) != 1]
    lines += ["", "groups (* is the default):"] * bool(open_groups)
    for group in open_groups:
        names = [f"{choice}*" if choice == group.default else choice for choice in group.choices]
        lines += _entry(group.key, ", ".join(names) or "(none yet)")
    lines += ["", "options:"]
    for name, meaning in (options.FLAGS | options.VALUED).items():
        lines += _entry(name, meaning)
    return "\n".join(lines)


def _entry(name: str, meaning: str) -> list[str]:
    first = f"  {name:<{_COLUMN - 2}}" if len(name) < _COLUMN - 2 else f"  {name}  "
    return textwrap.wrap(
        first + meaning, _WIDTH, subsequent_indent=" " * _COLUMN, break_long_words=False, break_on_hyphens=False
    )


def keys(command: str) -> dict[str, str]:
    """Key -> meaning, for the keys of a command, of its groups with a single choice, and of parts chosen by name."""
    groups = groups_of(command)
    found = {key: meaning for file in reversed(root_files(command)) for key, meaning in meanings(file).items()}
    for group in groups.values():
        shown = group.choices if len(group.choices) == 1 else []
        for choice in several(group.default or "null") if group.key in NAMED else shown:
            found |= section_meanings(group, choice)
    return {key: meaning for key, meaning in found.items() if key not in groups and key not in ("given", "defaults")}


def section_meanings(group: Group, choice: str) -> dict[str, str]:
    """The keys of a choice, dotted from the root of the config."""
    return {
        f"{group.key}.{key}": meaning for key, meaning in meanings(conf_folders.choices(group.folder)[choice]).items()
    }


def description(file: Path) -> str:
    """The comment at the top of a yaml file; if there is none, the first paragraph of the docstring of its target."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
    comment = " ".join(line.lstrip("# ") for line in lines if "@package" not in line)
    roots = [path for indent, path in conf_folders.targets(file) if not indent]
    if comment or not roots:
        return comment
    return " ".join(next(iter(docstrings(roots[0])), "").partition("\n\n")[0].split())


def documented(target: str) -> dict[str, str]:
    """Argument -> its description in the docstring of a constructor, as `name: text` or `one, other: text`."""
    names = "|".join(map(re.escape, sorted(parameters(target), key=len, reverse=True)))
    if not names:
        return {}
    entry = re.compile(rf"(?:^|(?<=[.;:)]\s)|(?<=\n))\s*((?:{names})(?:, (?:{names}))*):\s")
    found: dict[str, str] = {}
    for text in docstrings(target):
        for paragraph in re.split(r"\n\s*\n", text):
            _, *pieces = entry.split(paragraph)
            for listed, meaning in zip(pieces[::2], pieces[1::2], strict=True):
                for name in listed.split(", "):
                    found.setdefault(name, _NONE.sub("null", " ".join(meaning.split())).rstrip(";."))
    return found


def meanings(file: Path) -> dict[str, str]:
    """Dotted key -> the comment of its line, or else its description in the docstring of the constructor, for each key
    of a yaml file that has a value."""
    return dict(_commented(file))


def _commented(file: Path) -> Iterator[tuple[str, str]]:
    above: list[tuple[int, str]] = []  # indentation and key of the enclosing sections of a line
    texts: dict[int, dict[str, str]] = {}  # by indentation: descriptions from the docstring of the constructor
    for line in file.read_text(encoding="utf-8").splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        indent, key = len(found["space"]), found["key"]
        above = [section for section in above if section[0] < indent]
        texts = {depth: known for depth, known in texts.items() if depth <= indent}
        if key == TARGET:
            texts[indent] = documented(found["value"].strip())
        if key.startswith("_"):
            continue
        if found["value"].strip():
            yield (
                ".".join([*(section for _, section in above), key]),
                found["comment"] or texts.get(indent, {}).get(key, ""),
            )
        above.append((indent, key))
