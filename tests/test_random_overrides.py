"""Whatever is typed is taken, or refused in one line with exit code 2: real keys and groups with odd values."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig

from diffusion.commands import cli
from diffusion.config import conf_folders
from diffusion.runs import compose as configs
from diffusion.runs.groups import groups_of

ODD = ["", "0", "-1", "1e9", "nan", "inf", "0.5", "null", "true", "[]", "[1,2]", "[[1]]", "{}", "{a: 1}", "a=b", "a b"]
ODD += [
    "'",
    '"',
    "[",
    "}",
    "${seed}",
    "${",
    "$",
    "\\",
    "~",
    "+",
    "é",
    "👍",
    "../..",
    "a,b",
    "x" * 300,
    "none",
    "auto",
    "!!python/x",
]


def keys(node: DictConfig, prefix: str = "") -> list[str]:
    """Every key of a config, sections too."""
    found = []
    for name in node:
        found.append(prefix + name)
        if isinstance(child := node._get_node(name), DictConfig) and not child._is_none():
            found += keys(child, f"{prefix}{name}.")
    return found


@pytest.mark.parametrize("name", list(conf_folders.commands()))
def test_odd_overrides_are_accepted_or_rejected_in_a_line(name, capsys):
    groups = groups_of(name)
    choices = [choice for group in groups.values() for choice in group.choices]
    key = st.sampled_from([*keys(configs.compose(name)), *groups, "no.such", "", "-", "~seed", "+seed", "++seed"])
    word = st.tuples(key, st.sampled_from(["=", "=", "=", "", "==", "@"]), st.sampled_from([*ODD, *choices])).map(
        "".join
    )

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(word, max_size=3))
    def check(overrides):
        code = cli.main(name, [*overrides, "--print"])
        out, err = capsys.readouterr()
        assert code in (0, 2), (overrides, err)
        assert code == 0 or (out == "" and err.startswith("error: ") and err.count("\n") == 1), (overrides, out, err)

    check()
