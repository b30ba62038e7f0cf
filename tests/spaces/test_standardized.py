"""Standardized: there and back, whatever the scale; statistics against NumPy's; the density in the data's units."""

import math

import numpy as np
import pytest
import torch

from diffusion.clipping import Unclipped
from diffusion.data.lazy_rows import Rows
from diffusion.ground.errors import UserError
from diffusion.spaces import standardized
from diffusion.spaces.standardized import Standardized
from tests.helpers.fields import SHAPE, fields

X = fields(300)


def settled(x, **values):
    space = Standardized(x.shape[1:], **values)
    return Standardized(x.shape[1:], **values, **space.settled(lambda: torch.as_tensor(x)))


def error(x, space):
    """Of decode(encode(x)), in units of what a channel's values are, the larger of mean and std."""
    x = torch.as_tensor(x)
    scale = torch.tensor([max(abs(m), s, 1e-30) for m, s in zip(space.mean, space.std, strict=True)])[:, None, None]
    return ((space.decode(space.encode(x)).double() - x.double()).abs() / scale).max().item()


def test_there_and_back():
    space = settled(X)
    x_0 = space.encode(torch.from_numpy(X))
    assert x_0.dtype == torch.float32
    assert x_0.mean((0, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(x_0.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)
    assert error(X, space) < 1e-6
    assert (space.bounds, space.clip, space.discrete) == (None, Unclipped(), False)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16", "uint8"])
def test_every_type_comes_back(dtype):
    x = (50 + 20 * np.random.default_rng(0).standard_normal((20, *SHAPE))).clip(0, 255).astype(dtype)
    assert error(x, settled(x)) < 1e-6


def test_values_far_from_0_keep_their_digits():
    x = 1e6 + np.random.default_rng(0).standard_normal((50, 1, 4, 4))  # in float32 a step is 0.06
    space = settled(x)
    expected = (x - x.mean()) / x.std()
    torch.testing.assert_close(
        space.encode(torch.from_numpy(x)).double(), torch.from_numpy(expected), atol=1e-6, rtol=0
    )
    assert (space.decode(space.encode(torch.from_numpy(x)).double()) - torch.from_numpy(x)).abs().max() < 1e-6


def test_statistics_are_numpys_whatever_the_parts(monkeypatch):
    exact = X.astype(np.float64)
    for values in 2**22, 1000, 1:
        monkeypatch.setattr(standardized, "_VALUES", values)
        space = settled(X)
        np.testing.assert_allclose(space.mean, exact.mean((0, 2, 3)), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(space.std, exact.std((0, 2, 3)), rtol=1e-10)
    rows = Standardized(SHAPE).settled(lambda: Rows(X))
    assert rows["std"] == list(space.std)


def test_what_is_set_stays():
    space = settled(X, mean=[0, 0, 0], high=[1, 2, 3])
    assert (space.mean, space.high) == ((0, 0, 0), (1, 2, 3))
    assert space.settled(lambda: pytest.fail("nothing is missing")) == {}


@pytest.mark.parametrize("constant", [7.0, 0.1])  # the sum of many 0.1 is rounded
def test_a_constant_channel_is_shifted_only(constant, monkeypatch):
    monkeypatch.setattr(standardized, "_VALUES", 60)  # several parts
    x = np.full((10, 2, 3, 3), constant)
    x[:, 1] = np.random.default_rng(0).standard_normal((10, 3, 3))
    space = settled(x)
    assert (space.mean[0], space.std[0]) == (constant, 0)
    assert not space.encode(torch.from_numpy(x))[:, 0].any()
    assert error(x, space) < 1e-6
    assert torch.isfinite(space.log_unit).all()
    assert not space.picture(space.encode(torch.from_numpy(x)))[:, 0].any()


def test_an_image_ranges_from_low_to_high():
    space = Standardized((1, 1, 4), mean=[10.0], std=[2.0], low=[0.0], high=[20.0])
    x_0 = space.encode(torch.tensor([-5.0, 0.0, 10.0, 30.0]).reshape(1, 1, 4))
    assert space.picture(x_0).flatten().tolist() == [0, 0, 128, 255]
    low, high = (np.array(values) for values in (settled(X).low, settled(X).high))
    inside = (low[:, None, None] <= X) & (high[:, None, None] >= X)
    assert 0.985 < inside.mean() < 0.995
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    eight_bits = settled(levels)
    assert (eight_bits.low, eight_bits.high) == ((0,), (255,))
    assert torch.equal(eight_bits.picture(eight_bits.encode(torch.from_numpy(levels))), torch.from_numpy(levels))


def test_the_density_is_the_gaussian_one_and_its_units_are_the_datas():
    space, std = settled(X), torch.tensor(0.3, dtype=torch.float64)
    stored = torch.from_numpy(X[:5]).double()
    mean = torch.randn(5, *SHAPE, dtype=torch.float64)
    shift, units = (torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (space.mean, space.std))
    got = space.log_likelihood((stored - shift) / units, mean, std) - space.log_unit
    there = torch.distributions.Normal(mean * units + shift, std * units)
    torch.testing.assert_close(got, there.log_prob(stored))
    assert space.log_unit.flatten().tolist() == pytest.approx([math.log(each) for each in space.std])


@pytest.mark.parametrize(
    "values",
    [
        *({"mean": value} for value in ([1.0], [0.0] * 4, [0.0, 0.0, math.nan], [[0.0] * 3])),
        *({"std": value} for value in ([1.0, -1.0, 1.0], [math.inf] * 3)),
    ],
)
def test_wrong_statistics_are_refused(values):
    with pytest.raises(UserError, match=r"space\.(mean|std)="):
        Standardized(SHAPE, **values)
