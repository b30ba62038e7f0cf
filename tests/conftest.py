"""Examples of hypothesis: the same in each run of `make test`, new ones in `make test-random`."""

import copy

import pytest
from hydra import compose as hydra_compose
from hypothesis import settings

from diffusion.runs import compose as configs

_COMPOSED = {}

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("random", derandomize=False, print_blob=True)
settings.load_profile("repeatable")


@pytest.fixture
def compose_once(monkeypatch):
    """Hydra takes a tenth of a second to compose the groups: the same choices are composed once for all tests."""

    def compose(command, overrides):
        key = (command, *overrides)
        if key not in _COMPOSED:
            _COMPOSED[key] = hydra_compose(command, overrides)
        return copy.deepcopy(_COMPOSED[key])

    monkeypatch.setattr(configs, "hydra_compose", compose)
