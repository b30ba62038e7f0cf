"""Hydra's options that users type: they work, or are answered with what to write instead."""

import pytest
from omegaconf import OmegaConf

from diffusion.config import folders
from diffusion.runs import compose as configs
from diffusion.runs.groups import groups_of
from tests.helpers.commands import command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-cn", "mine"], "-cn: not an option here; each command has one config, of its own name; say python NAME.py"),
        (["--config-path=x"], "--config-path=x: not an option here; --config-dir adds a folder of your own"),
        (["--hydra-help"], "--hydra-help: not an option here; --help is the page of this program"),
        (["--experimental-rerun=x"], "--experimental-rerun=x: not an option here; rerun=RUN_FOLDER repeats a run"),
        (["hydra.run.dir=x"], "say run.dir= for the folder of a run, or run.root= for that of all runs"),
        (["hydra.sweep.dir=x"], "each run of -m has a folder of its own in run.root="),
        (["hydra/launcher=joblib"], "the runs of -m follow one another here"),
        (["hydra.verbose=true"], "Hydra only composes the config here; --print shows it"),
        (["+seed=3"], "+seed=3: keys are neither added nor deleted (+, ++, ~); say seed=3"),
        (["++experiment=digits"], "say experiment=digits"),
        (["~callbacks.preview"], "say callbacks.preview=null"),
        (["~seed"], "say seed=value"),
        (["--cfg", "hydra"], "--cfg hydra: Hydra only composes the config here; --cfg job shows it"),
        (["--cfg"], "--cfg: expected a value; --cfg job"),
        (["--package", "run"], "--package has no effect: it is of --print"),
        (["--cfg", "job", "--package", "rum"], "--package rum: no such section"),
        (["--info", "plugins"], "--info plugins: expected defaults or searchpath; --print shows the config"),
        (["-sc", "install=tcsh"], "expected install= and one of bash, zsh, fish"),
    ],
)
def test_what_is_no_option_here_is_answered_with_what_to_write(words, said, capsys):
    done = command("train", *words, capsys=capsys)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err


@pytest.mark.parametrize("words", [["--print"], ["--cfg", "job"], ["--cfg=job"], ["-c", "job"]])
def test_the_config_is_shown(words, capsys):
    done = command("train", "seed=5", *words, capsys=capsys)
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
    assert command("train", "--info=searchpath", capsys=capsys).out == f"{folders.package()}\n"


def test_a_callback_is_left_out(capsys):
    done = command("train", "--print", "callbacks.preview=null", capsys=capsys)
    assert "preview" not in OmegaConf.create(done.out).callbacks
