"""Detects the program that a folder or file is from. Each program has a module with `recognises` and `read`."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from diffusion.ground.errors import UserError
from diffusion.interop import diffusers, lucidrains, openai, safetensors
from diffusion.interop.foreign import Foreign, load

# A module has
#     recognises(path: Path, contents: Any) -> bool     whether it is of this program; contents: of the file, as
#                                                       returned by `foreign.load`, None for a folder
#     read(path: Path, *, option=None, ...) -> Foreign  or a one-line UserError for a model that we cannot express; each
#                                                       option is a key of conf/convert.yaml
PROGRAMS = (diffusers, safetensors, openai, lucidrains)


def read(path: Path, options: Mapping[str, Any] | None = None) -> Foreign:
    """The model in a folder or file, read with these options. Raises UserError if there is no known model, and for an
    option that its program does not have."""
    if not path.exists():
        raise UserError(f"from={path}: no such file or folder")
    contents = None if path.is_dir() else load(path)
    for program in PROGRAMS:
        if program.recognises(path, contents):
            return program.read(path, **_taken(program, options or {}))
    if (path / "checkpoints").is_dir() or (isinstance(contents, dict) and "config" in contents):
        raise UserError(f"from={path}: already a model of this program; set ckpt={path}")
    known = ", ".join(program.__name__.rpartition(".")[2] for program in PROGRAMS)
    raise UserError(f"from={path}: not a model of a known program ({known})")


def _taken(program: ModuleType, options: Mapping[str, Any]) -> Mapping[str, Any]:
    _, *takes = inspect.signature(program.read).parameters
    if useless := [option for option in options if option not in takes]:
        name = program.__name__.rpartition(".")[2]
        raise UserError(
            f"{useless[0]}= does not apply to a model of {name}: remove it; its options: {', '.join(takes) or 'none'}"
        )
    return options
