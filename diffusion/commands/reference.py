"""docs/configuration.md: every command, group, choice and key, from the yaml files, annotations and docstrings.

`python -m diffusion.commands.reference docs/configuration.md` writes it.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffusion.commands import help_pages
from diffusion.config import conf_folders
from diffusion.config.plain import plain
from diffusion.config.registry import NAMED
from diffusion.runs import compose as configs
from diffusion.runs.groups import groups_of
from diffusion.runs.unknown_keys import RENAMED

_TOP = """\
# Configuration

*Written by `make docs` from the yaml files in `conf/`, the annotations of the constructors that they name, and their
docstrings; a test fails when it is stale.*

`python NAME.py GROUP=CHOICE KEY=VALUE` runs the command NAME; so do `python -m diffusion NAME` and, once installed,
`diffusion-NAME`. A group is a folder of `conf/`, a choice a file in it; `sampler=ddim sampler.steps=20` uses
`conf/sampler/ddim.yaml` with another number of steps. Every value is checked before anything is
built. `--print` shows the composed config, `--help` the keys of a command, `-m` runs several values one after another.

`--config-dir my/conf`, or the environment variable `DIFFUSION_CONFIG_DIR`, adds choices, parts and commands
to any group: see Extend in the README.

## Completion in the shell

```
eval "$(python train.py --shell-completion install=bash)"    # or zsh; for fish: ... install=fish | source
```

It completes commands, groups, their choices, keys, options, and files behind a key that takes a path. Add the line to
the start-up file of the shell to make it permanent.
"""
_OF_EXPERIMENTS = ("experiment", "debug")


def page() -> str:
    """The whole page in Markdown."""
    return "\n".join([_TOP, *_commands(), *_groups(), *_renamed()]) + "\n"


def _commands() -> Iterator[str]:
    for command, path in conf_folders.commands().items():
        groups = groups_of(command)
        title, _, rest = help_pages.documentation(path).partition("\n\n")
        yield f"## {command}\n\n{title}\n\n```\n{rest.strip()}\n```\n"
        meanings = {key: meaning for key, meaning in help_pages.keys(command).items() if not _is_chosen(key)}
        yield from _table(command, configs.compose(command), meanings)
        chosen = [f"[{key}](#{group.folder}) ({group.default or 'null'})" for key, group in groups.items()]
        if chosen:
            yield f"Groups, with the choice that is the default: {', '.join(chosen)}.\n"


def _is_chosen(key: str) -> bool:
    """Whether a key belongs to a part chosen by name, which is documented with its group."""
    return key.partition(".")[0] in NAMED


def _groups() -> Iterator[str]:
    for folder in conf_folders.groups():
        where = _where(folder)
        if where is None:
            continue
        command, key = where
        yield f"## {folder}\n"
        for choice, file in conf_folders.choices(folder).items():
            yield f"### {key}={choice}\n"
            named = [f"`{path}`" for _, path in conf_folders.targets(file)]
            about = [help_pages.description(file), f"Builds {', '.join(named)}." if named else ""]
            yield "\n\n".join(filter(None, about)) + "\n"
            if folder in _OF_EXPERIMENTS:
                yield f"```yaml\n{_without_comment(file)}\n```\n"
            else:
                group = groups_of(command)[key]
                config = configs.compose(command, [f"{key}={choice}"])
                yield from _table(command, config, help_pages.section_meanings(group, choice))


def _where(folder: str) -> tuple[str, str] | None:
    """A command with this group, preferably train, and the key of the group; None for a group without a key,
    `sampling`."""
    for command in sorted(conf_folders.commands(), key=lambda name: name != "train"):
        for key, group in groups_of(command).items():
            if group.folder == folder:
                return command, key
    return None


def _without_comment(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("#")).strip()


def _table(command: str, config: DictConfig, meanings: Mapping[str, str]) -> Iterator[str]:
    if not meanings:
        return
    groups, tree = groups_of(command), plain(config, resolve=False)
    rows = []
    for key, meaning in meanings.items():
        if key in groups:
            continue
        default = _at(tree, key)
        takes = configs.kind(key, command, groups, tree, default).description
        rows.append((f"`{key}`", takes, _shown(default), meaning))
    yield "\n".join(_markdown(("key", "takes", "default", "meaning"), rows)) + "\n"


def _at(tree: Any, key: str) -> Any:
    """The unresolved value, including references and missing values."""
    for part in key.split("."):
        tree = tree[part]
    return tree


def _shown(value: Any) -> str:
    if value == "???":
        return "(must be given)"
    text = value if isinstance(value, str) else json.dumps(value).replace("Infinity", "inf")
    return f"`{text}`"


def _markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    head = [*head]
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _renamed() -> Iterator[str]:
    yield "## Renamed keys\n"
    yield "A former name is refused with a message that gives the current one.\n"
    rows = [(f"`{old}`", f"`{new}`") for old, new in RENAMED.items()]
    yield "\n".join(_markdown(("formerly", "now"), rows))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
    print(sys.argv[1])
