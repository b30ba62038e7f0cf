"""Weightings of the noise levels: those of their papers, in each unit."""

import pytest
import torch

from diffusion import parametrization, process, schedule
from diffusion.losses import weighting
from diffusion.losses.objective import L2
from tests.helpers.objectives import TABLES, WEIGHTINGS, loss_of, name, says_x_0

PAPERS = {  # weight of the squared error of x_0, as each paper writes it, from SNR at t
    "Simple": lambda snr, made, t: snr,
    "MinSNR": lambda snr, made, t: snr.clamp(max=5),
    "SNR": lambda snr, made, t: snr + 1,
    "P2": lambda snr, made, t: snr / (1 + snr),
    "VLB": lambda snr, made, t: 1000 / 2 * (made.log_snr(t - 1).exp() - snr),
    "Sigmoid": lambda snr, made, t: 1000 / 2 * (made.log_snr(t - 1).exp() - snr) / (1 + snr),
}


@pytest.mark.parametrize("weight", WEIGHTINGS, ids=name)
def test_weightings_are_those_of_their_papers(weight):
    made = schedule.linear()
    t = torch.arange(2, 1001, dtype=torch.float64)
    snr = made.log_snr(t).exp()
    of_x_0 = weight(made, t) / made(t)[1] ** 2  # from the error of v to that of x_0
    torch.testing.assert_close(of_x_0, PAPERS[name(weight)](snr, made, t), rtol=1e-6, atol=0)


def test_eps_mse_with_weight_w_is_x_0_mse_with_weight_w_snr(batch):
    made, wrong = schedule.cosine(1000), batch.x_0 + 0.3
    loss = loss_of(L2(weighting.P2()), says_x_0(parametrization.V(), made, batch, wrong), *batch)
    snr = made.log_snr(batch.t).exp()
    w = 1 / (1 + snr)
    torch.testing.assert_close(loss, w * snr * 0.3**2)
    alpha, sigma = made(batch.t)
    eps_error = alpha / sigma * 0.3
    torch.testing.assert_close(loss, w * eps_error**2)


@pytest.mark.parametrize("weight", WEIGHTINGS, ids=name)
@pytest.mark.parametrize("make", TABLES, ids=name)
def test_weights_are_finite_and_positive_at_both_ends_of_time(weight, make):
    made = make(1000)
    w = weight(made, torch.tensor([1.0, 1.5, 2.0, 999.0, 1000.0], dtype=torch.float64))
    assert torch.isfinite(w).all()
    assert (w > 0).all()


def test_the_vlb_weighting_is_the_bound(batch):
    made, wrong = schedule.cosine(1000), batch.x_0 + 0.01
    loss = loss_of(L2(weighting.VLB()), says_x_0(parametrization.X0(), made, batch, wrong), *batch)
    x_t = process.q_sample(made, batch.x_0, batch.t, batch.eps)
    term = process.vlb_term(made, batch.x_0, wrong, x_t, batch.t - 1, batch.t, mix=0.0)
    torch.testing.assert_close(loss[1:], 1000 * term[1:], rtol=1e-6, atol=1e-9)  # the decoder at t = 1 is another
