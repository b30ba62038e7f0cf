"""Hydra's options that users type: they work, or are answered with what to write instead."""

import pytest
from omegaconf import OmegaConf

from diffusion.config import conf_folders
from diffusion.runs import compose as configs
from diffusion.runs.groups import groups_of
from tests.helpers.commands import command


@pytest.mark.parametrize("overrides", [["--print"], ["--cfg", "job"], ["--cfg=job"], ["-c", "job"]])
def test_the_config_is_shown(overrides, capsys):
    done = command("train", "seed=5", *overrides, capsys=capsys)
    assert OmegaConf.create(done.out) == configs.compose("train", ["seed=5"])


def test_a_section_of_the_config_is_shown(capsys):
    done = command("train", "--cfg", "job", "-p", "callbacks.preview", "--resolve", "seed=5", capsys=capsys)
    assert done.out.startswith("# @package callbacks.preview\n")
    assert OmegaConf.create(done.out).seed == 5


def test_the_choices_of_all_groups_are_shown(capsys):
    done = command("train", "--info", "defaults", "experiment=digits", "sampler=heun", capsys=capsys)
    shown = dict(line.split() for line in done.out.splitlines())
    assert (shown["sampler"], shown["experiment"], shown["dataset"]) == ("heun", "digits", "digits")  # the recipe's
    assert shown.keys() == groups_of("train").keys()


def test_the_folders_are_shown(capsys):
    assert command("train", "--info=searchpath", capsys=capsys).out == f"{conf_folders.package()}\n"


def test_a_callback_is_left_out(capsys):
    done = command("train", "--print", "callbacks.preview=null", capsys=capsys)
    assert "preview" not in OmegaConf.create(done.out).callbacks
