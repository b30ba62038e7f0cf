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


@pytest.fixture
def pair():
    """A schedule, and x_0, eps, t and x_t of five images."""
    import torch

    from diffusion import process, schedule

    generator = torch.Generator().manual_seed(0)
    made = schedule.cosine(1000)
    x_0, eps = torch.randn(2, 5, 3, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([1.0, 10, 500, 900, 999])
    return made, x_0, eps, t, process.q_sample(made, x_0, t, eps)
