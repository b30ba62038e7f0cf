"""The config groups of a command."""

from diffusion.config import conf_folders
from diffusion.runs.groups import groups_of


def test_every_yaml_belongs_to_a_group():
    known = {group.folder for name in conf_folders.commands() for group in groups_of(name).values()} | {"sampling"}
    assert {file.parent.name for file in conf_folders.package().glob("*/*.yaml")} <= known
    assert all(group.default is None or group.default in group.choices for group in groups_of("train").values())
