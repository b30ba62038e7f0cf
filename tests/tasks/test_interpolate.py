"""Interpolation between seeds and between images, on data whose denoiser is exact."""

import numpy as np
import pytest
import torch

from diffusion import schedule
from diffusion.ground.errors import UserError
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM
from diffusion.tasks.generate import generate
from diffusion.tasks.interpolate import Interpolate, slerp
from tests.helpers.exact import MixtureDenoiser
from tests.helpers.tasks import SHAPE, SPACE, draw


def test_interpolation_between_seeds_goes_from_one_image_to_the_other():
    denoise, sampler = MixtureDenoiser(schedule.cosine(1000)), DDIM(steps=20)
    rows = draw(Interpolate("3", "8", 5, None, SPACE), sampler, denoise, n=10).unflatten(0, (2, 5))
    for seed, index in ((3, 0), (8, -1)):
        [(_, states)] = generate(denoise, sampler, SHAPE, torch.arange(2), seed)
        torch.testing.assert_close(rows[:, index], states[-1])
    steps = (rows[:, 1:] - rows[:, :-1]).abs().flatten(2).mean(2)
    assert (steps > 0).all()
    apart = draw(Interpolate("3", "8", 5, None, SPACE), sampler, denoise, n=10, batch_size=3).unflatten(0, (2, 5))
    assert torch.equal(apart, rows)


def test_interpolation_between_images_reproduces_both(picture):
    denoise = MixtureDenoiser(schedule.cosine(1000))
    values = [np.arange(16).reshape(4, 4) * 12 + 30, np.arange(16)[::-1].reshape(4, 4) * 10]
    files = [picture(value, f"{number}.png") for number, value in enumerate(values)]
    x_0 = draw(Interpolate(*files, 4, None, SPACE), DDIM(steps=50), denoise, n=4)
    for index, value in ((0, values[0]), (-1, values[1])):
        expected = torch.tensor(value.copy(), dtype=torch.float32) / 127.5 - 1
        torch.testing.assert_close(x_0[index, 0], expected, rtol=0, atol=5e-3)


def test_interpolation_from_a_time_shares_the_noise_of_a_row(picture):
    """Ho et al. 2020, Figure 8: two equal ends give a row of equal images, by an ancestral sampler too."""
    file = picture(np.arange(16).reshape(4, 4) * 12)
    denoise = MixtureDenoiser(schedule.cosine(1000))
    rows = draw(Interpolate(file, file, 3, 500, SPACE), DDPM(steps=20), denoise, n=6).unflatten(0, (2, 3))
    torch.testing.assert_close(rows, rows[:, :1].expand_as(rows), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(rows[0], rows[1], atol=0.05)


def test_slerp_keeps_the_length_and_ends_where_it_should():
    a, b = torch.randn(2, 5, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)
    weight = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    mixed = slerp(a, b, weight)
    torch.testing.assert_close(mixed.flatten(1).norm(dim=1), a.flatten(1).norm(dim=1))
    torch.testing.assert_close(mixed[0], a[0])
    torch.testing.assert_close(mixed[-1], b[-1])
    torch.testing.assert_close(slerp(a, a, weight), a)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("1", "2", 1, None), "task.points=1: expected a whole number, 2 or more"),
        (("1", "2", 4.5, None), "task.points=4.5: expected a whole number"),
        ((-1, "2", 5, None), "task.start=-1: expected a seed, a whole number, 0 or more, or the file of a picture"),
        (("1", "2", 5, 400.0), "only pictures are diffused up to t"),
        (("1", "nowhere.png", 5, None), "task.end=nowhere.png: not a readable picture"),
    ],
)
def test_impossible_interpolations_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Interpolate(*arguments, SPACE)
