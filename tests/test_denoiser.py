import pytest
import torch

from diffusion import parametrization
from diffusion.denoiser import Denoiser
from tests.helpers.networks import Output

TARGETS = [parametrization.Eps, parametrization.X0, parametrization.V]


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
