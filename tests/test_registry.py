"""Names of parts: unique in their group, and there and back again."""

import importlib

import pytest
from omegaconf import OmegaConf

from diffusion import build, registry
from diffusion import config as configs
from diffusion.denoiser import Denoiser
from diffusion.guidance import Guidance
from diffusion.samplers.base import Sampler
from diffusion.schedule import Schedule


@pytest.mark.parametrize("words", [[], ["ema=power", "sampler=ddim", "schedule=table", "schedule.betas=[0.1,0.2]"]])
def test_a_config_comes_back_as_it_was(words):
    config = OmegaConf.to_container(configs.compose("train", words), resolve=True)
    stored = registry.named(config)
    assert stored["network"]["class"] == "UNet"
    assert "_target_" not in str(stored)
    assert registry.resolved(stored, "x") == config


def test_every_group_with_classes_is_known():
    """A group whose choices name a class is a node of the config, or belongs to another command than training."""
    groups = {group.folder for group in configs.groups("train").values()}
    named = {group for group in groups if registry.classes(group)}
    assert named == {*registry.NODES.values()}


def test_no_two_classes_of_a_group_share_a_name():
    for folder in registry.conf_folder().iterdir():
        files = [OmegaConf.load(file) for file in folder.glob("*.yaml")]
        paths = {node["_target_"] for node in files if "_target_" in node}
        assert len(paths) == len(registry.classes(folder.name)) or folder.name in ("task", "experiment", "debug")


@pytest.mark.parametrize(("group", "base"), [("sampler", Sampler), ("schedule", Schedule), ("guidance", Guidance)])
def test_a_group_holds_what_its_name_says(group, base):
    for path in registry.classes(group).values():
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        assert issubclass(found if isinstance(found, type) else found.__annotations__["return"], base)


def test_what_is_built_is_what_was_named():
    config = OmegaConf.to_container(configs.compose("train", ["dataset=digits", "network=unet_tiny"]), resolve=True)
    model = build.model(registry.resolved(registry.named(config), "x"))
    assert isinstance(model.denoiser, Denoiser)
