"""Imports point down: a package knows only the packages on lower floors (and the files of its own folder)."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "diffusion"

FLOORS = [
    ["ground"],
    ["config"],
    ["conditioners", "optimization", "schedule"],
    ["data", "networks", "parametrization", "process"],
    ["denoiser"],
    ["clipping", "guidance", "losses", "samplers"],
    ["spaces"],
    ["tasks"],
    ["lit"],
    ["runs"],
    ["interop", "sampling"],
    ["evaluation"],
    ["report"],
    ["training"],
    ["commands"],
    ["__main__"],
]
FLOOR_OF = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def package_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_packages(path):
    """Packages of diffusion that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "diffusion":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffusion."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("diffusion."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    package = package_of(path)
    assert package in FLOOR_OF, f"{package} has no floor: give it one in FLOORS"
    up = [other for other in imported_packages(path) if other != package and FLOOR_OF[other] >= FLOOR_OF[package]]
    assert not up, f"{path.name} on floor {FLOOR_OF[package]} imports {up}"


def test_every_listed_package_exists():
    assert set(FLOOR_OF) == {package_of(path) for path in FILES}
