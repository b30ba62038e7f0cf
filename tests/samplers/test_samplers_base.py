"""The loop that all samplers share."""

from itertools import pairwise

import pytest
import torch

from diffusion import schedule
from diffusion.ground.errors import UserError
from diffusion.ground.random import Streams
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM
from tests.helpers.exact import GaussianDenoiser
from tests.helpers.samplers import draw


@pytest.mark.parametrize("sampler", [DDPM, DDIM])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 16, 17, 18, 19, 20])
def test_every_step_count_walks_down_to_0(sampler, steps):
    denoise = GaussianDenoiser(schedule.linear(20))
    noise = Streams(0, "sample", torch.arange(2), (1, 4, 4)).normal
    path = list(sampler(steps=steps).trajectory(denoise, noise(), noise))
    times = [state.t for state in path]
    assert len(path) == steps + 1
    assert times[0] == 20
    assert times[-1] == 0
    assert all(before > after for before, after in pairwise(times))
    assert [state.nfe for state in path] == list(range(steps + 1))
    assert torch.isfinite(path[-1].x).all()


@pytest.mark.parametrize("steps", [0, 21, -1])
def test_impossible_step_counts_are_refused(steps):
    expected = "1 to 20" if steps > 0 else "a whole number, 1 or more, or null"
    with pytest.raises(UserError, match=rf"sampler.steps={steps}: expected {expected}"):
        draw(DDIM(steps=steps), GaussianDenoiser(schedule.linear(20)))
