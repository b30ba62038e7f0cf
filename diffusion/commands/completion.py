"""Completion of groups, choices and keys in a shell: `eval "$(python train.py --shell-completion install=bash)"`."""

import os
import shlex
from pathlib import Path

from diffusion.commands import options
from diffusion.config import conf_folders
from diffusion.ground.errors import UserError
from diffusion.runs import compose as configs
from diffusion.runs.groups import Group, groups_of, known_keys

# Each script calls the program for the possible completions, one per line. `=` and `:` are parts of a word here.
_BASH = """\
_diffusion_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" word="${COMP_LINE:0:COMP_POINT}" words program
    word="${word##* }"; words=($line)
    case "${words[0]##*/}" in
        python*) case "${words[1]##*/} ${words[2]}" in
            "-m diffusion") program=("${words[0]}" -m diffusion);;
            *) case "${words[1]##*/}" in NAMES) program=("${words[0]}" "${words[1]}");; *) return;; esac;;
        esac;;
        *) program=("${words[0]}");;
    esac
    local IFS=$'\\n'
    COMPREPLY=($(COMP_LINE="$line" "${program[@]}" --shell-completion query 2>/dev/null))
    local colon="${word%"${word##*[=:]}"}"
    COMPREPLY=("${COMPREPLY[@]#"$colon"}")
}
complete -o nospace -o default -F _diffusion_complete PROGRAMS
"""
_ZSH = "autoload -Uz bashcompinit && bashcompinit\n" + _BASH
_FISH = """\
function _diffusion_complete
    set -lx COMP_LINE (commandline -cp)
    set -l words (commandline -cpo)
    if string match -q 'python*' (basename $words[1])
        test (count $words) -gt 1; or return
        if test "$words[2..3]" = '-m diffusion'
            $words[1] -m diffusion --shell-completion query 2>/dev/null
        else if string match -qr '^(NAMES)$' (basename -- $words[2])
            $words[1] $words[2] --shell-completion query 2>/dev/null
        end
    else
        $words[1] --shell-completion query 2>/dev/null
    end
end
for program in PROGRAMS
    complete -c $program -f -a '(_diffusion_complete)'
end
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def answer(command: str | None, asked: str) -> str:
    """The output of --shell-completion: a script for a shell (install=bash), or the completions of the line in the
    environment variable COMP_LINE (query)."""
    if asked == "query":
        return "\n".join(candidates(command, os.environ.get("COMP_LINE", "")))
    shell = asked.removeprefix("install=")
    if shell not in _SCRIPTS:
        raise UserError(f"--shell-completion {asked}: expected install= and one of {', '.join(_SCRIPTS)}")
    names = [f"{name}.py" for name in conf_folders.commands()]
    programs = ["python", "python3", *(f"diffusion-{name}" for name in conf_folders.commands())]
    return _SCRIPTS[shell].replace("NAMES", "|".join(names)).replace("PROGRAMS", " ".join(programs)).rstrip()


def candidates(command: str | None, line: str) -> list[str]:
    """The completions of the last word of a command line: keys and groups with their `=`, sections with their dot, the
    choices of a group, options, and files after a key that takes a path, or if a path may be given without a key."""
    word = "" if not line or line[-1].isspace() else line.split()[-1]
    command = command or _command(line)
    if word.startswith("-"):
        return [name for name in (*options.FLAGS, *options.VALUED) if name.startswith(word)]
    if command is None:
        return [name for name in conf_folders.commands() if name.startswith(word)]
    chosen = _chosen(line, groups_of(command))
    groups = groups_of(command, dict(word.split("=") for word in chosen))
    key, equals, value = word.partition("=")
    if equals and key in groups:
        return [f"{key}={choice}" for choice in groups[key].choices if choice.startswith(value)]
    if equals:
        return _files(key, value) if configs.kind(key, command, groups).literal else []
    known = known_keys(configs.compose(command, chosen), groups)
    sections = {key for key, default in known.items() if isinstance(default, dict)}
    files = _paths(word) if configs.bare_key(command) else []
    return [*_next([*known, *groups], sections, groups, key), *files]


def _command(line: str) -> str | None:
    """The command after `python -m diffusion`, once it is followed by a space."""
    _, _, rest = line.partition(" -m diffusion ")
    name, space, _ = rest.lstrip().partition(" ")
    return name if space and name in conf_folders.commands() else None


def _next(names: list[str], sections: set[str], groups: dict[str, Group], typed: str) -> list[str]:
    """The names that begin with `typed`, up to the next dot."""
    start, found = typed.rpartition(".")[0], set()
    depth = len(start.split(".")) if start else 0
    for name in names:
        parts = name.split(".")
        if name.startswith(typed) and len(parts) == depth + 1:
            found |= {f"{name}."} if name in sections else set()
            found |= {f"{name}="} if name in groups or name not in sections else set()
    return sorted(found)


def _chosen(line: str, groups: dict[str, Group]) -> list[str]:
    """The valid choices on the line."""
    try:
        words = shlex.split(line)[:-1]
    except ValueError:  # an open quote
        return []
    pairs = (word.partition("=") for word in words)
    return [f"{key}={text}" for key, _, text in pairs if key in groups and text in groups[key].choices]


def _files(key: str, value: str) -> list[str]:
    return [f"{key}={path}" for path in _paths(value)]


def _paths(value: str) -> list[str]:
    folder = Path(os.path.expanduser(value)).parent if value and not value.endswith("/") else Path(value or ".")
    try:
        files = sorted(folder.iterdir())
    except OSError:
        return []
    start = value[: value.rfind("/") + 1]
    found = [f"{start}{file.name}{'/' if file.is_dir() else ''}" for file in files]
    return [one for one in found if one.startswith(value)]
