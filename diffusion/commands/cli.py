"""The command line: `python NAME.py`, `diffusion-NAME` and `python -m diffusion NAME`.

Options, sweeps and exit codes are here; `runs/compose.py` composes the config from the overrides, `help_pages.py` the
help page. Slow imports happen after the overrides are checked, so `--help` and errors in overrides respond immediately.
"""

import importlib
import io
import itertools
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion.commands import completion, help_pages, options
from diffusion.config import conf_folders
from diffusion.config.suggestions import items, suggest
from diffusion.config.value_parsers import LITERAL, LITERALS, RAW
from diffusion.ground.errors import UserError, memory_wanted, show_notices
from diffusion.runs import compose as configs
from diffusion.runs.groups import groups_of


def script() -> int:
    """Entry point of NAME.py and diffusion-NAME. Returns the exit code: 0, 1 (a failed job of a sweep), 2,
    130 (interrupted) or 141 (output closed)."""
    return main(Path(sys.argv[0]).stem.removeprefix("diffusion-"), sys.argv[1:])


def main(command: str | None, arguments: Sequence[str]) -> int:
    """Runs `command` (None: the first argument is its name) with the arguments of the command line. A user error is one
    line on stderr and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that the encoding lacks, as on stderr
    show_notices(_is_first_process())
    try:
        return _main(command, arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        user_error = _out_of_memory(command, error) or _user_error(error)
        if user_error is None:
            raise
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        print(f"error: {' '.join(str(user_error).split())}", file=sys.stderr)
        return 2


def _main(command: str | None, arguments: Sequence[str]) -> int:
    given, overrides = options.read(arguments)
    conf_folders.use(given.config_dir)
    if given.completion is not None:
        print(completion.answer(command, given.completion))
        return 0
    if command is None:
        command, overrides = (overrides[0], overrides[1:]) if overrides else (None, [])
    if command is None or (given.help and command not in conf_folders.commands()):
        print(help_pages.overview())
        return 0 if given.help else 2
    _check(command)
    if given.help:
        print(help_pages.help_page(command))
        return 0
    overrides = configs.keyed(command, overrides)
    if given.multirun:
        return _multirun(command, overrides)
    if given.shown is not None:
        print(given.shown(command, overrides, configs.compose(command, overrides)), end="")
        return 0
    path = run(command, *overrides)
    if path is not None and _is_first_process():
        print(path, flush=True)
    return 0


def run(command: str, *overrides: str) -> Path:
    """Runs a command from Python: `run("train", "dataset=digits")` does what `python train.py dataset=digits` does.

    Returns the path of the result. Raises UserError for user errors.
    """
    _check(command)
    config = configs.compose(command, configs.keyed(command, overrides))
    configs.check_complete(config)
    return _function(conf_folders.commands()[command])(config)


def _check(command: str) -> None:
    known = conf_folders.commands()
    if command not in known:
        raise UserError(f"{command}: no such command; choose one of {', '.join(known)}{suggest(command, known)}")


def _function(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not module.startswith(error.name or "?"):
            raise
        raise UserError(f"{path}: {error}; the file of a command needs `_target_: my_module.run`") from error
    if not callable(found):
        raise UserError(f"{path} is not a function; the file of a command needs `_target_: my_module.run`")
    return found


def _out_of_memory(command: str | None, error: BaseException) -> UserError | None:
    """One line that names the key to lower, if the command ran out of memory."""
    wanted = memory_wanted(error)
    if wanted is None:
        return None
    module = sys.modules.get(conf_folders.commands().get(command or "", "").rpartition(".")[0])
    advice = getattr(module, "LESS_MEMORY", "use a machine with more")
    requested = f" ({wanted} more were requested)" if wanted else ""
    return UserError(f"out of memory{requested}: {advice}")


def _user_error(error: BaseException | None) -> UserError | None:
    """The UserError in the chain of causes: the instantiate of Hydra wraps exceptions of constructors."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def _is_first_process() -> bool:
    # The variables, in order, that Lightning reads for the rank.
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
    return next((os.environ[name] for name in names if name in os.environ), "0") == "0"


def _multirun(command: str, overrides: Sequence[str]) -> int:
    """Every combination of the comma-separated values, each in a new process: jobs share no state."""
    jobs = [list(job) for job in itertools.product(*(_values(override, command) for override in overrides))]
    for job in jobs:  # errors in any job are found before the first one runs
        configs.check_complete(configs.compose(command, job))
    results, failed = [], 0
    for number, job in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {' '.join(job)}", flush=True)
        code, folder = _run_job(job)
        failed += code != 0
        results.append(folder if code == 0 else f"failed, exit code {code}: {' '.join(job)}")
    print("", *results, sep="\n", flush=True)
    return 1 if failed else 0


def _values(override: str, command: str) -> list[str]:
    key, text = configs.split(override)
    kind = configs.kind(key, command, groups_of(command))
    if kind.taken in (LITERAL, LITERALS):  # a comma is part of a path
        return [override]
    if kind.taken == RAW and not text.startswith(("range(", "choice(")):
        return [f"{key}={value}" for value in items(text)] or [override]
    parsed = configs.parse(key, text)
    if not parsed.is_sweep_override():
        return [override]
    if not parsed.is_discrete_sweep():
        raise UserError(f"{override}: a sweep needs a list of values, such as {key}=1,2,3")
    return [f"{key}={value}" for value in parsed.sweep_string_iterator()]


def _run_job(overrides: Sequence[str]) -> tuple[int, str]:
    """Runs this program with `overrides`, forwarding its output. Returns the exit code and the last line, the run
    folder."""
    with subprocess.Popen([*_program(), *overrides], stdout=subprocess.PIPE) as process:
        try:
            tail = _forward(process)
        except KeyboardInterrupt:
            _forward(process)  # it was interrupted too, and is writing its checkpoint
            raise
    return process.returncode, tail.decode(errors="replace").rstrip().rpartition("\n")[2]


def _program() -> list[str]:
    """The command that starts this program."""
    if Path(sys.argv[0]).name == "__main__.py":
        return [sys.executable, "-m", "diffusion", sys.argv[1]]
    return [sys.executable, sys.argv[0]]


def _forward(process: subprocess.Popen[bytes]) -> bytes:
    """Copies the output of a process to stdout without buffering, including progress bars. Returns its end."""
    stream, tail = process.stdout, b""
    assert isinstance(stream, io.BufferedReader)
    while piece := stream.read1():
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        tail = (tail + piece)[-10_000:]
    return tail
