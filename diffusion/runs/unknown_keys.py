"""The message for a key that the config does not have: its current name, or the command that has it."""

from collections.abc import Mapping
from itertools import chain

from diffusion.config import conf_folders
from diffusion.config.plain import load
from diffusion.config.registry import TARGET
from diffusion.config.suggestions import suggest
from diffusion.runs.groups import Group, groups_of, known_keys, load_choice, root_files

RENAMED = {
    "trainer.val_every_n_epochs": "validate.every_n_epochs",
    "conditioning.drop": "conditioning.label.drop",
    "preview.": "callbacks.preview.",
    **{f"metric.{key}": f"metric.bpd.{key}" for key in ("n", "steps", "variance", "clipping")},
    **{f"logger.{key}": f"logger.wandb.{key}" for key in ("project", "entity", "mode")},
    "strategy.strategy": "strategy",
}
"""Former name of a key -> its name. A name that ends with a dot means all keys of a section."""

_OF_HYDRA = {
    "hydra.run.dir": "set run.dir= for the folder of one run, or run.root= for the folder of all runs",
    "hydra.sweep.dir": "each job of -m has its own folder in run.root=",
    "hydra.searchpath": "--config-dir adds a folder of your own",
    "hydra/launcher": "the jobs of -m run one after another",
    "hydra/sweeper": "-m runs every combination of the values",
}

# Set by the command line itself, never typed.
_FILLED = {"given", TARGET}


def explain(key: str, text: str, command: str, names: list[str], known: Mapping[str, Group]) -> str:
    """One line about the unknown `key` of key=text. names: the keys and groups that the command has."""
    if (now := _renamed(key)) is not None:
        return f"{key}={text}: this key is now called {now}; use {now}={text}"
    if key.startswith("hydra"):
        return f"{key}={text}: Hydra only composes the config here; {_OF_HYDRA.get(key, '--print shows it')}"
    head = key.partition(".")[0]
    if head not in names and (where := _elsewhere(head, command)):
        return f"{key}={text}: belongs to {where}{suggest(key, names)}"
    for group in known.values():
        if key.startswith(f"{group.key}.") and (having := _choices_with(key, group, known)):
            return f"{key}: no such key in this choice of {group.key}; {' or '.join(having)} has it"
    return f"{key}: no such key{suggest(key, names) or '; --help lists them'}"


def _renamed(key: str) -> str | None:
    section, dot, name = key.partition(".")
    return RENAMED.get(key) or (f"{RENAMED[section + dot]}{name}" if section + dot in RENAMED else None)


def _choices_with(key: str, group: Group, known: Mapping[str, Group]) -> list[str]:
    """group=choice of each choice of a group that has the key."""
    rest = key.removeprefix(f"{group.key}.")
    having = (each for each in group.choices if rest in known_keys(load_choice(group.folder, each), known))
    return [f"{group.key}={choice}" for choice in having]


def _elsewhere(name: str, command: str) -> str:
    """The other commands that have a key or group of this name."""
    having = [
        other
        for other in conf_folders.commands()
        if other != command and name in {*groups_of(other), *chain(*map(load, root_files(other)))} - _FILLED
    ]
    return "training: the checkpoint fixes it" if "train" in having else ", ".join(f"{other}.py" for other in having)
