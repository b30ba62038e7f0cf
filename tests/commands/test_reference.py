"""docs/configuration.md says what the code does."""

from pathlib import Path

from diffusion.commands import reference
from diffusion.config import conf_folders

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_not_stale():
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == reference.page(), "run `make docs`"


def test_every_choice_is_on_it_and_every_key_has_a_meaning():
    lines = reference.page().splitlines()
    for group in conf_folders.groups():
        if group != "sampling":
            assert f"## {group}" in lines
            assert {f"={choice}" for choice in conf_folders.choices(group)} <= {
                line[line.index("=") :] for line in lines if line.startswith("### ") and "=" in line
            }
    for line in lines:
        if line.startswith("| `"):
            assert not line.endswith("|  |"), f"no meaning: {line}"
            assert "| a value |" not in line, f"no kind: {line}"
