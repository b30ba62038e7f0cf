"""Help pages take meanings from comments and docstrings."""

import pytest

from diffusion.commands import help_pages


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
