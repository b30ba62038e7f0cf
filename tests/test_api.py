"""The public API: its names, and the README's programs as a reader would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import diffusion

ROOT = Path(__file__).resolve().parent.parent


def programs():
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("### From Python")[2].partition("\n#")[0]
    return re.findall(r"```python\n(.*?)```", section, re.S)


@pytest.mark.parametrize("number", [0, 1])
def test_the_programs_of_the_readme_run(number, tmp_path):
    program = programs()[number].replace("2000", "3")
    assert "=3" in program
    program += "\nprint(tuple(x_0.shape), float(x_0.abs().max()) <= 1)"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(16, 1, 8, 8) True"


def test_every_public_name_is_there():
    assert len({*diffusion.__all__}) == len(diffusion.__all__)
    for name in diffusion.__all__:
        found = getattr(diffusion, name)
        assert getattr(found, "__name__", name).rpartition(".")[2] == name
        assert found.__doc__, name
    assert {*diffusion.__all__} < {*dir(diffusion)}


def test_the_types_are_those_of_the_names():
    """What a type checker reads in `if TYPE_CHECKING` is what `__getattr__` gives."""
    source = (ROOT / "diffusion/__init__.py").read_text(encoding="utf-8")
    block = source.partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    typed = {}
    for module, names in re.findall(r"from (\S+) import (.*)", block):
        typed |= {name: f"{module}.{name}" for name in names.split(", ")}
    assert typed.keys() == {*diffusion.__all__}
    for name, path in typed.items():
        found = getattr(diffusion, name)
        where = found.__name__ if name == "images" else f"{found.__module__}.{found.__qualname__}"
        assert where == path


def test_version_is_that_of_the_project():
    assert f'version = "{diffusion.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'sampel'"):
        diffusion.sampel  # noqa: B018


def test_a_mistake_is_a_user_error():
    with pytest.raises(diffusion.UserError, match="no such command"):
        diffusion.run("trian")
    with pytest.raises(diffusion.UserError, match="ckpt is missing"):
        diffusion.run("sample")
