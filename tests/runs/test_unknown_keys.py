"""A key that the config does not have: its current name."""

from diffusion.runs import compose as configs
from diffusion.runs.groups import groups_of, known_keys
from diffusion.runs.unknown_keys import RENAMED


def test_what_a_key_was_called_is_answered_with_what_it_is_called_now(capsys):
    from diffusion.commands.cli import main

    for old, new in RENAMED.items():
        command = "evaluate" if old.startswith("metric.") else "train"
        known = known_keys(configs.compose(command), groups_of(command))
        old, now = (f"{name}n" if name.endswith(".") else name for name in (old, new))
        assert main(command, [f"{old}=1"]) == 2
        assert f"this key is now called {now}; use {now}=1" in capsys.readouterr().err
        assert now in known or now in groups_of(command) or now.startswith(("conditioning.", "logger."))
