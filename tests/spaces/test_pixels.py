"""Pixels is the pair of `images`, bit for bit."""

import pytest
import torch

from diffusion.clipping import Static
from diffusion.ground import images
from diffusion.process import discretized_log_likelihood
from diffusion.spaces.pixels import Pixels

EVERY = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def test_it_is_todays_pair():
    space = Pixels([1, 16, 16])
    assert space.shape == (1, 16, 16)
    assert torch.equal(space.encode(EVERY), images.from_uint8(EVERY))
    assert torch.equal(space.decode(space.encode(EVERY)), EVERY)
    x_0 = 3 * torch.randn(2, 1, 16, 16)
    assert torch.equal(space.decode(x_0), images.to_uint8(x_0))
    assert torch.equal(space.picture(x_0), images.to_uint8(x_0))
    assert (space.bounds, space.clip, space.discrete) == ((-1, 1), Static(), True)
    assert not space.log_unit.any()
    assert space.settled(lambda: pytest.fail("nothing is asked of the data")) == {}


def test_the_decoder_is_that_of_8_bits():
    x_0, mean, std = images.from_uint8(EVERY), torch.randn(1, 1, 16, 16), torch.tensor(0.02)
    got = Pixels((1, 16, 16)).log_likelihood(x_0, mean, std)
    assert torch.equal(got, discretized_log_likelihood(x_0, mean, std))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_it_takes_8_bits_alone(dtype):
    assert Pixels((1, 8, 8)).takes(torch.uint8)
    assert not Pixels((1, 8, 8)).takes(dtype)


@pytest.mark.parametrize(("channels", "seen"), [(1, 1), (2, 3), (3, 3), (5, 3)])
def test_an_image_has_one_channel_or_three(channels, seen):
    x_0 = 2 * torch.rand(2, channels, 4, 6) - 1
    space = Pixels((channels, 4, 6))
    picture = space.picture(x_0)
    assert picture.shape == (2, seen, 4, 6)
    assert torch.equal(picture[:, : min(channels, 3)], images.to_uint8(x_0)[:, :3])
    assert not picture[:, channels:].any()
    assert space.holds_pictures == (channels == seen)
