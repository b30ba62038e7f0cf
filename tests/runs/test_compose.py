"""From words to a config: kinds of values, groups and recipes, and every file of conf/."""

import re

import pytest
from omegaconf import OmegaConf

from diffusion.config import conf_folders
from diffusion.ground.errors import UserError
from diffusion.runs import compose as configs
from diffusion.runs.groups import groups_of, known_keys


def test_home_is_expanded_and_null_is_null(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = configs.compose("train", ["run.dir=~/run", "resume=null"])
    assert config.run.dir == "/home/me/run"
    assert config.resume is None


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("seed=3", 3),
        ("trainer.max_steps=1e5", 100_000),
        ("trainer.max_minutes=2", 2.0),
        ("trainer.max_minutes=null", None),
        ("ema.decay=0", 0.0),
        ("optimizer.betas=[0,0.9]", [0.0, 0.9]),
        ("strategy.devices=[0,1]", [0, 1]),
        ("strategy.devices=2", 2),
        ("trainer.precision=32", "32"),
        ("trainer.precision=bf16-mixed", "bf16-mixed"),
        ("logger.wandb.project=007", "007"),
        ("logger.wandb.project='a, b'", "a, b"),
        ("logger.wandb.entity=me", "me"),
        ("dataset.val_images=null", None),
        ("run.name=2024", "2024"),
        ("callbacks.preview.sampler.steps=7", 7),
        ("sampler.variance=0.5", 0.5),
        ("sampler.times=[1000,500,0]", [1000, 500, 0]),
        ("sampler.variance=fixed_large", "fixed_large"),
    ],
)
def test_values_take_the_kind_of_their_default(word, value):
    got = OmegaConf.select(configs.compose("train", [word]), word.partition("=")[0])
    assert got == value
    assert type(got) is type(value) or isinstance(value, list)


def test_whole_numbers_stay_whole():
    assert type(configs.compose("train", ["trainer.max_steps=1e3"]).trainer.max_steps) is int


@pytest.mark.parametrize("value", ["ema", "raw", "half_life_50000", "power_0.05", 0.08])
def test_weights(value):
    assert configs.compose("sample", [f"weights={value}"]).weights == value


@pytest.mark.parametrize(("word", "value"), [("keep=3", 3), ("keep=all", "all"), ("keep=every:5", "every:5")])
def test_keep(word, value):
    assert configs.compose("sample", [word]).keep == value


def test_a_choice_fills_its_group_and_nothing_else():
    plain, other = (
        configs.compose("train"),
        configs.compose("train", ["callbacks.preview.sampler=ddpm", "dataset=digits"]),
    )
    assert other.dataset.name == "digits"
    assert other.callbacks.preview.sampler._target_ == plain.sampler._target_
    assert plain.callbacks.preview.sampler._target_ != plain.sampler._target_
    assert other.sampler == plain.sampler


def test_overrides_win_over_debug_and_debug_over_groups():
    config = configs.compose("train", ["debug=fast", "trainer.max_steps=3"])
    assert config.trainer.max_steps == 3
    assert (config.callbacks.preview.n, config.logger) == (4, {})
    assert [*configs.compose("train", ["logger=wandb", "debug=fast"]).logger] == ["wandb"]


def test_a_recipe_does_not_reach_into_another_choice_than_its_own():
    assert configs.compose("train", ["experiment=digits"]).ema.decay == 0.998
    assert set(configs.compose("train", ["experiment=digits", "ema=power"]).ema) == {
        "_target_",
        "sigma_rel",
        "snapshots",
    }
    config = configs.compose("train", ["experiment=digits", "debug=overfit", "ema=decay", "schedule=linear"])
    assert (config.ema.decay, config.schedule.T, config.trainer.max_steps) == (0.99, 1000, 1000)


def test_an_unchosen_sampler_of_sample_py_is_its_changes_alone():
    config = configs.compose("sample", ["ckpt=x", "sampler.steps=50"])
    assert config.sampler == {"steps": 50}
    assert config.clipping is None


def test_a_chosen_sampler_of_sample_py_takes_its_changes():
    config = configs.compose("sample", ["ckpt=x", "sampler=ddim", "sampler.steps=9"])
    assert config.sampler.steps == 9
    assert config.sampler._target_.startswith("diffusion.")


def every_choice():
    for name in conf_folders.commands():
        for group in groups_of(name).values():
            for choice in group.choices:
                yield name, group.key, choice


@pytest.mark.parametrize(("name", "key", "choice"), list(every_choice()))
def test_every_yaml_composes(name, key, choice):
    config = configs.compose(name, [f"{key}={choice}"])
    expected = {"ckpt", "dataset.path", "task.image", "task.mask", "task.start", "task.end", "schedule.betas"}
    for needed in OmegaConf.missing_keys(config):
        assert needed.removeprefix("callbacks.preview.") in expected
        OmegaConf.update(config, needed, "x")
    configs.check_complete(config)
    if key not in ("experiment", "debug"):
        assert OmegaConf.is_dict(OmegaConf.select(config, key))


def test_recipes_set_only_keys_that_are_read():
    """A recipe's yaml is merged without a check: a misspelt key would be ignored in silence."""
    known = groups_of("train")
    read = set(known_keys(configs.compose("train"), known))
    for group in known.values():
        for choice in [] if group.key in ("experiment", "debug") else group.choices:
            values = OmegaConf.load(conf_folders.package() / group.folder / f"{choice}.yaml")
            read |= {f"{group.key}.{name}" for name in known_keys(values, known)}
    for key in "experiment", "debug":
        for choice in known[key].choices:
            assert set(known_keys(configs.compose("train", [f"{key}={choice}"]), known)) <= read


@pytest.mark.parametrize("command", ["sample", "compare", "evaluate"])
def test_a_condition_of_any_name_is_handed_on_as_it_was_typed(command):
    config = configs.compose(command, ["ckpt=x", "condition.size=[3,'a']", "condition.vector=1e3"])
    assert config.condition == {"label": None, "vector": "1e3", "size": "[3,'a']"}
    config = configs.compose("train", ["callbacks.preview.condition.size=007"])
    assert config.callbacks.preview.condition.size == "007"


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("train", "condition.size=3"),
        ("convert", "condition.size=3"),
        ("sample", "condition.size.x=3"),
        ("sample", "condition.=3"),
        ("train", "callbacks.batch.condition.size=3"),
    ],
)
def test_where_no_condition_is_asked_for_there_is_none(command, word):
    with pytest.raises(UserError, match=re.escape(word.partition("=")[0])):
        configs.compose(command, [word])


DRAW = """
from typing import Annotated

from omegaconf import DictConfig

from diffusion.sampling.section import SamplingKeys
from diffusion.config.value_types import File


class Keys(SamplingKeys):
    ckpt: File


def run(config: Annotated[DictConfig, Keys]):
    pass
"""


def test_a_command_of_ones_own_may_be_made_of_our_sections(tmp_path, monkeypatch):
    defaults = "defaults:\n  - sampling@_here_: default\n  - _self_\n"
    text = f"_target_: mine_that_draws.run\n\n{defaults}\nckpt: ???\nn: 5\ngiven: []\n"
    (tmp_path / "draw.yaml").write_text(text)
    (tmp_path / "mine_that_draws.py").write_text(DRAW)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "sampler").mkdir()
    (tmp_path / "sampler" / "few.yaml").write_text("_target_: diffusion.samplers.ddim.DDIM\nsteps: 3\n")
    monkeypatch.setenv(conf_folders.VARIABLE, str(tmp_path))
    config = configs.compose("draw", ["ckpt=x", "sampler=few", "condition.size=3", "task=img2img", "task.image=a,b"])
    assert (config.n, config.sampler.steps, config.condition.size, config.task.image) == (5, 3, "3", "a,b")
    assert config.given == ["sampler", "task", "ckpt", "condition.size", "task.image"]
    assert configs.compose("sample", ["ckpt=x", "sampler=few"]).sampler.steps == 3
