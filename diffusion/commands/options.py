"""Options of the command line, and replacements for the other options of Hydra."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion.config import conf_folders
from diffusion.config.suggestions import suggest
from diffusion.ground.errors import UserError
from diffusion.runs import compose as configs

FLAGS = {
    "--help": "-h: this page",
    "--multirun": "-m: several values, one run each, such as seed=1,2,3",
    "--print": "show the whole config as YAML and stop; also --cfg job",
    "--resolve": "with --print: interpolations such as ${seed} are replaced by their values",
}
VALUED = {
    "--config-dir": "-cd FOLDER: additional choices, parts and commands (README.md, Extend)",
    "--package": "-p KEY: with --print, only this section",
    "--info": "-i defaults: the choice of every group; searchpath: the folders that are searched",
    "--shell-completion": "-sc install=bash, zsh or fish: see docs/configuration.md",
}
_SHORT = {
    "-h": "--help",
    "-m": "--multirun",
    "-cd": "--config-dir",
    "-c": "--cfg",
    "-p": "--package",
    "-i": "--info",
    "-sc": "--shell-completion",
}
_INSTEAD = {
    **dict.fromkeys(("--config-name", "-cn"), "each command has one config of the same name; use python NAME.py"),
    **dict.fromkeys(("--config-path", "-cp"), "--config-dir adds a folder"),
    **dict.fromkeys(("--run", "-r"), "a single run needs no option"),
    "--hydra-help": "--help shows the help of this program",
    "--experimental-rerun": "rerun=RUN_FOLDER repeats a run",
}


@dataclass
class Given:
    """The options of a command line. shown: returns the text to print instead of running, from command, overrides and
    config."""

    help: bool = False
    multirun: bool = False
    config_dir: str | None = None
    completion: str | None = None
    shown: Callable[[str, Sequence[str], DictConfig], str] | None = None


def read(arguments: Sequence[str]) -> tuple[Given, list[str]]:
    """The options, and the overrides. Raises UserError for an unknown option."""
    given: dict[str, Any] = {}
    rest, left = [], list(arguments)
    while left:
        argument = left.pop(0)
        if not argument.startswith("-"):
            rest.append(argument)
            continue
        name, equals, value = argument.partition("=")
        name = _SHORT.get(name, name)
        if name in FLAGS and not equals:
            given[name] = True
        elif name in VALUED or name == "--cfg":
            if not equals and (not left or left[0].startswith("-")):
                raise UserError(f"{argument}: expected a value; {name} {VALUED.get(name, 'job')}")
            if name in given:
                raise UserError(f"{name} is given twice: give it once")
            given[name] = value if equals else left.pop(0)
        else:
            raise UserError(_unknown(argument, name))
    return _given(given), rest


def _unknown(argument: str, name: str) -> str:
    if name in _INSTEAD:
        return f"{argument}: not an option here; {_INSTEAD[name]}"
    known = [*FLAGS, *VALUED]
    return f"{argument}: no such option; choose one of {', '.join(known)}{suggest(name, known)}; values are key=value"


def _given(options: dict[str, Any]) -> Given:
    if options.get("--cfg", "job") != "job":
        raise UserError(f"--cfg {options['--cfg']}: Hydra only composes the config here; --cfg job shows it")
    printing = "--print" in options or "--cfg" in options
    for name in "--package", "--resolve":
        if name in options and not printing:
            raise UserError(f"{name} has no effect without --print")
    shown = _printed(options.get("--package"), "--resolve" in options) if printing else None
    if (topic := options.get("--info")) is not None:
        shown = _information(topic)
    return Given(
        help="--help" in options,
        multirun="--multirun" in options,
        config_dir=options.get("--config-dir"),
        completion=options.get("--shell-completion"),
        shown=shown,
    )


def _printed(package: str | None, resolve: bool) -> Callable[..., str]:
    """The config, or a section of it."""

    def text(command: str, overrides: Sequence[str], config: DictConfig) -> str:
        if package in (None, "_global_"):
            return OmegaConf.to_yaml(config, resolve=resolve)
        section = OmegaConf.select(config, package)
        if section is None and package in config:
            raise UserError(f"--package {package}: this section is null")
        if not OmegaConf.is_dict(section):
            raise UserError(f"--package {package}: no such section{suggest(package, map(str, config))}")
        return f"# @package {package}\n{OmegaConf.to_yaml(section, resolve=resolve)}"

    return text


def _information(topic: str) -> Callable[..., str]:
    if topic == "searchpath":
        return lambda *_: "".join(f"{folder}\n" for folder in conf_folders.all_())
    if topic != "defaults":
        raise UserError(f"--info {topic}: expected defaults or searchpath; --print shows the config")
    return lambda command, overrides, _: "".join(
        f"{key:<28}{choice or 'null'}\n" for key, choice in configs.chosen(command, overrides).items()
    )
