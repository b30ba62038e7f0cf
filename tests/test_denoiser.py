import pytest
import torch
from torch import nn

from diffusion import clipping, parametrization, process, schedule
from diffusion.denoiser import Denoiser
from diffusion.ground.errors import UserError

TARGETS = [parametrization.Eps, parametrization.X0, parametrization.V]


class Output(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x, t, condition):
        self.t = t
        return self.output


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    made = schedule.cosine(1000)
    x_0, eps = torch.randn(2, 5, 3, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([1.0, 10, 500, 900, 999])
    return made, x_0, eps, t, process.q_sample(made, x_0, t, eps)


@pytest.mark.parametrize("target", TARGETS)
def test_a_network_that_hits_its_target_recovers_all_views(target, pair):
    made, x_0, eps, t, x_t = pair
    alpha, sigma = (scale.reshape(-1, 1, 1, 1) for scale in made(t))
    network = Output(target().target(x_0, eps, alpha, sigma))
    got = Denoiser(network, made, target())(x_t, t)
    torch.testing.assert_close(got.x_0, x_0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(got.eps, eps, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(got.v, alpha * eps - sigma * x_0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(got.score, (alpha * x_0 - x_t) / sigma**2, rtol=1e-8, atol=1e-8)
    assert network.t.tolist() == [0, 9, 499, 899, 998]


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
