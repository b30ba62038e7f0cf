"""docs/configuration.md says what the code does, and help pages take meanings from docstrings."""

from pathlib import Path

import pytest

from diffusion.commands import help_pages, reference
from diffusion.config import conf_folders

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_not_stale():
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == reference.page(), "run `make docs`"


def test_every_choice_is_on_it_and_every_key_has_a_meaning():
    lines = reference.page().splitlines()
    for group in conf_folders.groups():
        if group != "sampling":
            assert f"## {group}" in lines
            assert {f"={choice}" for choice in conf_folders.choices(group)} <= {
                line[line.index("=") :] for line in lines if line.startswith("### ") and "=" in line
            }
    for line in lines:
        if line.startswith("| `"):
            assert not line.endswith("|  |"), f"no meaning: {line}"
            assert "| a value |" not in line, f"no kind: {line}"


@pytest.mark.parametrize(
    ("target", "name", "meaning"),
    [
        ("diffusion.samplers.ddim.DDIM", "steps", "their number, null for all T"),  # of its base
        ("diffusion.training.loggers.wandb.Wandb", "entity", "of the run; null: W&B's own default"),  # one of two
        ("diffusion.networks.unet.UNet", "patch", "p x p pixels become the channels of one"),
        ("diffusion.guidance.Auto", "rescale", "0 to 1, how far the result is rescaled"),
    ],
)
def test_the_meaning_of_an_argument_in_a_docstring(target, name, meaning):
    assert help_pages.documented(target)[name].startswith(meaning)


def test_a_comment_comes_before_the_docstring(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("_target_: diffusion.samplers.ddim.DDIM\nsteps: 7 # mine\ntimes: trailing\neta: 0.0\n")
    found = help_pages.meanings(file)
    assert found["steps"] == "mine"
    assert found["times"].startswith("the times visited, see")
