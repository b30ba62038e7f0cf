"""Which program a folder or file is from. Each has a module here, with `recognises` and `read`."""

from pathlib import Path

from diffusion.errors import UserError
from diffusion.interop import diffusers, lucidrains, openai
from diffusion.interop.foreign import Foreign, load

# A module has
#     recognises(path: Path, contents: Any) -> bool     whether it is of this program; contents: what the file holds, as
#                                                       `foreign.load` gives it, None for a folder
#     read(path: Path) -> Foreign                       or UserError, in one line, for what we cannot express
PROGRAMS = (diffusers, openai, lucidrains)


def read(path: Path) -> Foreign:
    """The model in a folder or file. Raises UserError where there is none that we know."""
    if not path.exists():
        raise UserError(f"from={path}: no such file or folder")
    contents = None if path.is_dir() else load(path)
    for program in PROGRAMS:
        if program.recognises(path, contents):
            return program.read(path)
    known = ", ".join(program.__name__.rpartition(".")[2] for program in PROGRAMS)
    raise UserError(f"from={path}: of no program that we know ({known})")
