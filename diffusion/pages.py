"""Help pages, made from the commands' docstrings and the comments of the yaml files."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from diffusion import config as configs
from diffusion import folders, options
from diffusion.config import Group
from diffusion.source import definition

_LINE = re.compile(r"^(?P<space> *)(?P<key>[\w.]+):(?P<value>[^#]*?)(?:\s+#\s*(?P<comment>.*))?$")
_WIDTH, _COLUMN = 120, 30


def overview() -> str:
    """The commands, each with the first line of its page."""
    lines = ["usage: python -m diffusion COMMAND [OPTION] [KEY=VALUE] ...", "", "commands:"]
    for name, path in folders.commands().items():
        lines.append(f"  {name:<{_COLUMN - 2}}{documentation(path).partition(chr(10))[0]}")
    return "\n".join([*lines, "", "python -m diffusion COMMAND --help is the page of one."])


def documentation(path: str) -> str:
    """The docstring of the module of an import path, which is not imported."""
    return ast.get_docstring(ast.parse(definition(path).module.file.read_text(encoding="utf-8"))) or ""


def help_page(command: str) -> str:
    """Usage, examples, keys, every group with its choices, and options."""
    groups = configs.groups(command)
    lines = [documentation(folders.commands()[command]).rstrip(), "", "keys:"]
    for key, meaning in keys(command).items():
        lines += _entry(key, meaning)
    several = [group for group in groups.values() if len(group.choices) != 1]
    lines += ["", "groups (* is the default):"] * bool(several)
    for group in several:
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
    """The keys of a command, and of its groups with a single choice: what each means."""
    groups = configs.groups(command)
    found = {key: meaning for file in reversed(configs.root_files(command)) for key, meaning in meanings(file).items()}
    for group in groups.values():
        if len(group.choices) == 1:
            found |= section_meanings(group, group.choices[0])
    return {key: meaning for key, meaning in found.items() if key not in groups and key not in ("given", "defaults")}


def section_meanings(group: Group, choice: str) -> dict[str, str]:
    """The keys of a choice, dotted from the root of the config."""
    return {f"{group.key}.{key}": meaning for key, meaning in meanings(folders.choices(group.folder)[choice]).items()}


def meanings(file: Path) -> dict[str, str]:
    """Dotted key -> the comment of its line, for each key of a yaml file that has a value."""
    return dict(_commented(file))


def _commented(file: Path) -> Iterator[tuple[str, str]]:
    above: list[tuple[int, str, str]] = []  # indentation, key and comment of the sections around a line
    for line in file.read_text(encoding="utf-8").splitlines():
        found = _LINE.match(line)
        if found is None or found["key"].startswith("_"):
            continue
        indent = len(found["space"])
        above = [section for section in above if section[0] < indent]
        comment = found["comment"] or ""
        if found["value"].strip():
            dotted = ".".join([*(key for _, key, _ in above), found["key"]])
            yield dotted, comment
        above.append((indent, found["key"], comment))
