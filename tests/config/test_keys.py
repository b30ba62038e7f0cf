"""Every key is described by the annotation of the constructor whose argument it is, and by nothing else."""

import pytest
from omegaconf import OmegaConf

from diffusion.config import conf_folders, keys
from diffusion.config.registry import TARGET
from diffusion.config.signatures import Default, parameters
from diffusion.config.value_parsers import LITERAL, RAW
from diffusion.ground.errors import UserError
from diffusion.runs import compose as configs
from diffusion.runs.groups import folders_by_key, groups_of, known_keys

COMMANDS = [*conf_folders.commands()]


def folders_of(command, **chosen):
    return folders_by_key(groups_of(command, chosen))


def every_node():
    """Each node of conf/ that names a class: file, group, class, and its keys."""
    for group in conf_folders.groups():
        for file in conf_folders.choices(group).values():
            for node in nodes(OmegaConf.to_container(OmegaConf.load(file))):
                if node[TARGET].startswith("diffusion."):  # another library's defaults are its own
                    yield pytest.param(group, node, id=f"{group}/{file.stem}-{node[TARGET].rpartition('.')[2]}")


def nodes(tree):
    if isinstance(tree, dict):
        if TARGET in tree:
            yield tree
        for value in tree.values():
            yield from nodes(value)


def composed(command):
    """Config by config, with each choice of each group once: its keys, and its groups."""
    yield configs.compose(command), folders_of(command)
    for key, group in groups_of(command).items():
        for choice in group.choices:
            yield configs.compose(command, [f"{key}={choice}"]), folders_of(command, **{key: choice})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_a_command_is_annotated(command):
    unknown = set()
    for config, groups in composed(command):
        tree = OmegaConf.to_container(config, resolve=False)
        for key, default in known_keys(config, groups_of(command)).items():
            if not isinstance(default, dict) and key not in groups:
                unknown |= set() if keys.parameters_at(key, command, groups, tree) else {key}
    assert not unknown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_default_is_one_of_the_values_that_its_key_takes(command):
    for config, groups in composed(command):
        tree = OmegaConf.to_container(config, resolve=False)
        for key, default in known_keys(config, groups_of(command)).items():
            typed = not isinstance(default, dict) and key not in groups and default != "???"
            if typed and not (isinstance(default, str) and "${" in default):
                keys.kind_at(key, command, groups, tree).read(default)


@pytest.mark.parametrize(("group", "node"), [*every_node()])
def test_a_default_in_python_is_one_of_the_yamls_of_its_group(group, node):
    """Choices differ, unet_tiny from unet_small. A yaml without the key leaves it at Python's."""
    takes = parameters(node[TARGET])
    others = [
        other
        for file in conf_folders.choices(group).values()
        for other in nodes(OmegaConf.to_container(OmegaConf.load(file)))
    ]
    for key in node.keys() & takes.keys() - {"name"}:  # of a data set: None is that of its class
        default = takes[key].default
        values = [each[key] for each in others if key in each]
        if default in (Default.REQUIRED, Default.COMPUTED) or "${" in str(values):
            continue
        if any(each[TARGET] == node[TARGET] and key not in each for each in others):
            continue
        assert (list(default) if isinstance(default, tuple) else default) in values, key


@pytest.mark.parametrize(
    ("command", "key", "taken"),
    [
        ("train", "dataset.path", LITERAL),
        ("train", "callbacks.preview.task.image", LITERAL),
        ("train", "run.name", LITERAL),
        ("train", "callbacks.preview.y", RAW),
        ("train", "callbacks.preview.condition.vector", RAW),
        ("sample", "condition.anything", RAW),
        ("sample", "guidance.ckpt", LITERAL),
        ("sample", "task.start", LITERAL),
        ("convert", "from", LITERAL),
        ("train", "seed", "parsed"),
    ],
)
def test_how_a_value_is_taken_is_known_before_anything_is_chosen(command, key, taken):
    """For a sweep: a comma is part of a path."""
    assert configs.kind(key, command, groups_of(command)).taken == taken


def test_a_key_of_several_samplers_is_read_by_any_of_them():
    kind = configs.kind("sampler.order", "sample", groups_of("sample"))
    assert [kind.read(order) for order in (1, 2, 3)] == [1, 2, 3]
    assert kind.description == "1, 2 or 3"


def test_a_number_that_none_of_them_takes_is_refused():
    with pytest.raises(UserError, match=r"sampler\.order=4: expected 1, 2 or 3"):
        configs.compose("sample", ["sampler.order=4"])
