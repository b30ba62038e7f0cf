import pytest
import torch

from diffusion import clipping, parametrization
from diffusion.denoiser import Denoiser
from diffusion.ground.errors import UserError
from tests.helpers.networks import Output


def test_clipped_x_0_brings_its_own_eps(pair):
    made, _, eps, t, x_t = pair
    clipped = clipping.Clip(Denoiser(Output(eps), made, parametrization.Eps()), clipping.Static())(x_t, t)
    alpha, sigma = (scale.reshape(-1, 1, 1, 1) for scale in made(t))
    assert clipped.x_0.abs().max() <= 1
    torch.testing.assert_close(alpha * clipped.x_0 + sigma * clipped.eps, x_t)
    assert (clipped.eps - eps).abs().max() > 0.1


def test_dynamic_threshold_is_per_image_and_leaves_small_images_alone():
    rule = clipping.Dynamic(percentile=0.5)
    x_0 = torch.tensor([[0.1, -0.2, 0.9], [4.0, -2.0, 0.5]]).reshape(2, 3, 1, 1)
    got = rule(x_0).flatten(1)
    torch.testing.assert_close(got[0], x_0[0].flatten())
    torch.testing.assert_close(got[1], torch.tensor([1.0, -1.0, 0.25]))


@pytest.mark.parametrize("percentile", [0, 1.1, -1])
def test_impossible_percentiles_are_refused(percentile):
    with pytest.raises(UserError, match=r"clipping\.percentile"):
        clipping.Dynamic(percentile)
