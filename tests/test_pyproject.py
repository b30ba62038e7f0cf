"""What the package may be installed with."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import diffusion

# Releases that stole credentials. lightning requires pytorch-lightning of any version.
COMPROMISED = {"lightning": ["2.6.2", "2.6.3"], "pytorch-lightning": ["2.6.2", "2.6.3"]}  # GHSA-w37p-236h-pfx3


@pytest.mark.parametrize("name", COMPROMISED)
def test_no_compromised_release_is_admitted(name):
    with open(Path(__file__).parent.parent / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    [requirement] = [each for each in map(Requirement, project["dependencies"]) if each.name == name]
    assert not any(requirement.specifier.contains(version) for version in COMPROMISED[name])
    assert all(requirement.specifier.contains(version) for version in ("2.6.1", "2.6.4", "2.6.6"))


def test_every_folder_of_the_package_is_installed():
    root = Path(__file__).parent.parent
    packages = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(file.parent.relative_to(root).parts) for file in root.glob("diffusion/**/__init__.py")}
    assert {*packages} == {*found, "diffusion.conf"}


def test_the_version_is_the_one_declared():
    """Where it fails, pyproject.toml is younger than the installation."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert diffusion.__version__ == project["version"]
