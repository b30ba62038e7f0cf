"""The exact denoiser of a set of images; its loss is in test_floor.py."""

import torch

from diffusion.evaluation.empirical import Empirical, EmpiricalDenoiser
from diffusion.schedule import linear
from tests.helpers.small_sets import pictures


def test_mirrored_images_count():
    schedule, x_0, x_t = linear(1000), pictures(), pictures(6, seed=2)
    mirrored, both = Empirical(x_0, mirrored=True), Empirical(torch.cat([x_0, x_0.flip(-1)]))
    assert len(mirrored) == len(both) == 600
    assert torch.equal(mirrored.x_0(torch.arange(600)), both.images)
    torch.testing.assert_close(
        EmpiricalDenoiser(schedule, mirrored)(x_t, 300).x_0, EmpiricalDenoiser(schedule, both)(x_t, 300).x_0
    )
