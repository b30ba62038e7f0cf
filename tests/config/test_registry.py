"""Names of parts: unique in their group, and there and back again."""

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from diffusion.config import conf_folders, registry
from diffusion.denoiser import Denoiser
from diffusion.ground.errors import UserError
from diffusion.runs import build
from diffusion.runs import compose as configs
from diffusion.runs.groups import groups_of


@pytest.mark.parametrize("overrides", [[], ["ema=power", "sampler=ddim", "schedule=table", "schedule.betas=[0.1,0.2]"]])
def test_a_config_comes_back_as_it_was(overrides):
    config = OmegaConf.to_container(configs.compose("train", overrides), resolve=True)
    stored = registry.named(config)
    assert stored["network"]["class"] == "UNet"
    assert "_target_" not in str(stored)
    assert registry.resolved(stored, "x") == config


def test_every_group_with_classes_is_known():
    """A group whose choices name a class is a node of the config, or belongs to another command than training."""
    groups = {group.folder for group in groups_of("train").values()}
    named = {group for group in groups if registry.classes(group)}
    of_evaluate = {"metric", "features"}
    assert named == {*registry.NODES.values(), *registry.NAMED, *registry.WITHIN} - of_evaluate


def test_no_two_classes_of_a_group_share_a_name():
    for folder in conf_folders.package().iterdir():
        files = [OmegaConf.load(file) for file in folder.glob("*.yaml")]
        plain = [OmegaConf.to_container(file) for file in files]
        nodes = [node for file in plain for node in (file, *file.values()) if isinstance(node, dict)]
        paths = {node["_target_"] for node in nodes if "_target_" in node}
        assert len(paths) == len(registry.classes(folder.name)) or folder.name in ("task", "experiment", "debug")


def test_every_group_has_a_base_class_and_every_choice_is_callable():
    assert registry.BASES.keys() >= {*registry.NODES.values()}
    for path in registry.registered():
        assert callable(registry.class_at(path))


@pytest.mark.parametrize("group", registry.BASES)
@pytest.mark.parametrize("path", ["diffusion.ground.bar.Bar", "diffusion.ground.images.to_uint8", "os.system"])
def test_a_yaml_that_names_something_else_is_refused_by_name(monkeypatch, group, path):
    """A folder of choices is trusted, and may still hold a slip."""
    monkeypatch.setattr(registry, "registered", lambda: {path: group})
    with pytest.raises(UserError, match=rf"conf/{group}/ names {path}, which is no {registry.BASES[group]}"):
        build.instantiate({"_target_": path, "command": "exit 1"})


def test_naming_parts_imports_none_of_them():
    code = "from diffusion.runs import compose; compose.compose('train'); import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_what_is_built_is_what_was_named():
    config = OmegaConf.to_container(configs.compose("train", ["dataset=digits", "network=unet_tiny"]), resolve=True)
    model = build.model(registry.resolved(registry.named(config), "x"))
    assert isinstance(model.denoiser, Denoiser)


def test_all_that_can_be_built_has_a_base():
    assert {group for group in registry.registered().values()} <= registry.BASES.keys()
