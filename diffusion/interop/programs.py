"""Which program a folder or file is from. Each has a module here, with `recognises` and `read`."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from diffusion.ground.errors import UserError
from diffusion.interop import diffusers, lucidrains, openai, safetensors
from diffusion.interop.foreign import Foreign, load

# A module has
#     recognises(path: Path, contents: Any) -> bool     whether it is of this program; contents: what the file holds, as
#                                                       `foreign.load` gives it, None for a folder
#     read(path: Path, *, word=None, ...) -> Foreign    or UserError, in one line, for what we cannot express; the words
#                                                       are what it can be told, each a key of conf/convert.yaml
PROGRAMS = (diffusers, safetensors, openai, lucidrains)


def read(path: Path, words: Mapping[str, Any] | None = None) -> Foreign:
    """The model in a folder or file, with the words that it is told besides. Raises UserError where there is no model
    that we know, and for a word that its program has no use for."""
    if not path.exists():
        raise UserError(f"from={path}: no such file or folder")
    contents = None if path.is_dir() else load(path)
    for program in PROGRAMS:
        if program.recognises(path, contents):
            return program.read(path, **_taken(program, words or {}))
    if (path / "checkpoints").is_dir() or (isinstance(contents, dict) and "config" in contents):
        raise UserError(f"from={path}: of this program already; say ckpt={path}")
    known = ", ".join(program.__name__.rpartition(".")[2] for program in PROGRAMS)
    raise UserError(f"from={path}: of no program that we know ({known})")


def _taken(program: ModuleType, words: Mapping[str, Any]) -> Mapping[str, Any]:
    _, *takes = inspect.signature(program.read).parameters
    if useless := [word for word in words if word not in takes]:
        name = program.__name__.rpartition(".")[2]
        raise UserError(
            f"{useless[0]}= is of no use for a model of {name}: leave it out, its own words are "
            f"{', '.join(takes) or 'none'}"
        )
    return words
