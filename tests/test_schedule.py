import math

import numpy as np
import pytest
import torch

from diffusion import parametrization, schedule
from diffusion.denoiser import Denoiser
from diffusion.ground.errors import UserError

TABLES = [
    schedule.linear,
    schedule.cosine,
    schedule.sigmoid,
    schedule.quadratic,
    schedule.scaled_linear,
    schedule.laplace,
]
CLOSED = [schedule.VP, schedule.ContinuousCosine]
ALL = TABLES + CLOSED


def test_linear_is_the_papers_table():
    betas = np.linspace(1e-4, 0.02, 1000)
    made = schedule.linear()
    np.testing.assert_allclose(made.betas, betas, rtol=1e-12)
    alpha, sigma = made(torch.arange(1, 1001))
    np.testing.assert_allclose(alpha**2, np.cumprod(1 - betas), rtol=1e-12)
    np.testing.assert_allclose(sigma**2, 1 - np.cumprod(1 - betas), rtol=1e-10)


def test_quadratic_is_linear_in_the_root_of_beta():
    np.testing.assert_allclose(schedule.quadratic().betas, np.linspace(1e-2, 0.02**0.5, 1000) ** 2, rtol=1e-12)


@pytest.mark.parametrize("T", [10, 1000, 4000])
def test_cosine_is_the_closed_form_where_beta_is_not_cut(T):
    made = schedule.cosine(T)
    u = np.arange(T + 1) / T
    f = np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    np.testing.assert_allclose(made.log_alpha_bar(torch.arange(T)).exp(), (f / f[0])[:-1], rtol=1e-9)
    assert made.betas[-1] == pytest.approx(0.999, abs=1e-12)


def test_sigmoid_is_the_closed_form_where_beta_is_not_cut():
    u = np.arange(1000) / 1000
    curve = 1 / (1 + np.exp(-3.0)) - 1 / (1 + np.exp(-(6 * u - 3)))
    made = schedule.sigmoid().log_alpha_bar(torch.arange(1000)).exp()
    np.testing.assert_allclose(made, curve / curve[0], rtol=1e-9)


@pytest.mark.parametrize("T", [1, 2, 3, 10, 250, 1000, 4000])
@pytest.mark.parametrize("make", ALL)
def test_every_length_is_sound(make, T):
    made = make(T)
    t = torch.linspace(0, T, 301, dtype=torch.float64)
    k = torch.arange(T)
    alpha, sigma = made(t)
    assert made.T == T
    assert alpha[0] == 1
    assert sigma[0] == 0
    assert (made.beta(k, k + 1) > 0).all()
    assert (made.beta(k, k + 1) < 1).all()
    assert torch.isfinite(made.log_snr(t[1:])).all()
    assert (made.log_snr(t[1:]).diff() < 0).all()
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))
    assert alpha[-1] ** 2 <= 1e-2


@pytest.mark.parametrize("make", [schedule.linear, schedule.quadratic, schedule.scaled_linear])
def test_another_length_cuts_the_same_curve(make):
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(make(10).log_alpha_bar(10 * u), make(1000).log_alpha_bar(1000 * u))


@pytest.mark.parametrize("make", ALL)
def test_log_snr_has_an_exact_inverse(make):
    made = make(1000)
    t = torch.cat([torch.linspace(0.001, 1000, 2001, dtype=torch.float64), torch.tensor([0.0])])
    torch.testing.assert_close(made.t_of_log_snr(made.log_snr(t)), t, rtol=1e-9, atol=1e-9)
    ends = torch.tensor([1e9, -1e9], dtype=torch.float64)
    assert made.t_of_log_snr(ends).tolist() == [0, 1000]


def test_between_steps_beta_is_constant():
    made = schedule.cosine(10)
    t = torch.tensor([3.0, 3.25, 3.5, 4.0], dtype=torch.float64)
    log = made.log_alpha_bar(t)
    torch.testing.assert_close(log[1] - log[0], (log[3] - log[0]) / 4)
    torch.testing.assert_close(log[2] - log[0], (log[3] - log[0]) / 2)


def test_beta_of_one_step_and_of_several():
    made = schedule.linear()
    t = torch.arange(1, 1001)
    torch.testing.assert_close(made.beta(t - 1, t), made.betas)
    torch.testing.assert_close(made.beta(0, 500), 1 - made.log_alpha_bar(500).exp())


def test_precision_survives_a_cast_of_the_module_to_half():
    module = torch.nn.ModuleList([schedule.linear()]).half()
    alpha, sigma = module[0](1)
    assert alpha.dtype == torch.float64
    assert sigma.item() == pytest.approx(0.01, rel=1e-12)


def test_nothing_is_in_the_state_dict():
    assert not schedule.linear().state_dict()


def test_shapes_of_t():
    made = schedule.linear()
    assert made(torch.zeros(2, 3))[0].shape == (2, 3)
    assert made(5)[0].shape == ()


@pytest.mark.parametrize("betas", [[1.0, 0.1], [0.0, 0.5], [0.5, 1.1], [float("nan"), 0.5]])
def test_betas_outside_0_1_are_refused(betas):
    with pytest.raises(UserError, match=r"every beta in \(0, 1\)"):
        schedule.Table(torch.tensor(betas))


@pytest.mark.parametrize(("betas", "message"), [([], "at least 1 step"), (0.1, "each a number above 0")])
def test_a_table_needs_steps(betas, message):
    with pytest.raises(UserError, match=message):
        schedule.Table(betas)


@pytest.mark.parametrize("make", ALL)
def test_no_steps_are_refused(make):
    with pytest.raises(UserError, match=r"schedule.T=0: expected a whole number, 1 or more"):
        make(0)


def test_a_schedule_that_does_not_reach_noise_warns():
    with pytest.warns(UserWarning, match=r"alpha_bar_T = 0\.\d+ is above 0\.01"):
        schedule.linear(beta_end=0.001)


@pytest.mark.parametrize("make", TABLES)
def test_zero_terminal_snr(make):
    """Lin et al. 2023, Algorithm 1: sqrt(alpha_bar) goes linearly from its value at 1 to 0 at T."""
    before, after = make(1000), make(1000).with_zero_terminal_snr()
    t = torch.arange(1, 1001)
    root, rescaled = before(t)[0], after(t)[0]
    torch.testing.assert_close(rescaled, (root - root[-1]) * root[0] / (root[0] - root[-1]), rtol=1e-6, atol=1e-9)
    assert rescaled[-1] == 0
    assert after(1000)[1] == 1
    half = after(torch.tensor([999.0, 999.5, 1000.0]))[0]
    assert torch.isfinite(half).all()
    assert after.t_of_log_snr(torch.tensor([-float("inf")])).item() == 1000
    torch.testing.assert_close(after.t_of_log_snr(after.log_snr(t[:-1])), t[:-1].double(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("make", [schedule.VP, schedule.ContinuousCosine])
def test_zero_terminal_snr_of_a_closed_form(make):
    before, after = make(1000), make(1000).with_zero_terminal_snr()
    t = torch.linspace(0, 1000, 401, dtype=torch.float64)
    alpha, alpha_T = before(t)[0], before(1000)[0]
    torch.testing.assert_close(after(t)[0], (alpha - alpha_T) / (1 - alpha_T), rtol=1e-9, atol=1e-12)
    assert after(1000)[0] == 0
    assert after(1000)[1] == 1
    assert after(0)[0] == 1
    assert after.t_of_log_snr(torch.tensor([-float("inf")])).item() == pytest.approx(1000)
    torch.testing.assert_close(after.t_of_log_snr(after.log_snr(t[1:-1])), t[1:-1], rtol=1e-6, atol=1e-6)


def test_eps_is_refused_with_zero_terminal_snr():
    rescaled = schedule.linear().with_zero_terminal_snr()
    with pytest.raises(UserError, match="use prediction=v"):
        Denoiser(torch.nn.Identity(), rescaled, parametrization.Eps())
    Denoiser(torch.nn.Identity(), rescaled, parametrization.V())


def test_vp_is_the_limit_of_the_linear_table():
    """Song et al. 2021, Eq. 33: beta_min / T and beta_max / T are the betas of the first and the last step."""
    t = torch.linspace(0, 1000, 11, dtype=torch.float64)
    torch.testing.assert_close(schedule.VP().log_alpha_bar(t), schedule.linear().log_alpha_bar(t), rtol=0.02, atol=1e-3)
    u = t / 1000
    torch.testing.assert_close(schedule.VP().log_alpha_bar(t), -(0.1 * u + 19.9 * u**2 / 2))


def test_closed_cosine_ends_at_the_log_snr_it_is_given():
    made = schedule.ContinuousCosine(T=7, log_snr_min=-9.0)
    assert made.log_snr(7).item() == pytest.approx(-9)
    torch.testing.assert_close(made(3.5)[0], torch.cos(torch.tensor(made.angle / 2, dtype=torch.float64)))


def test_laplace_has_the_quantiles_of_its_distribution():
    """log-SNR at u is the (1 - u) quantile of Laplace(mean, scale), where beta is not cut."""
    from scipy.stats import laplace

    made = schedule.laplace(1000, mean=0.5, scale=0.7)
    u = np.arange(1, 1000) / 1000
    np.testing.assert_allclose(made.log_snr(torch.arange(1, 1000)), laplace.ppf(1 - u, 0.5, 0.7), rtol=1e-9, atol=1e-9)


def test_betas_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match="beta_min"):
        schedule.VP(beta_min=3, beta_max=2)
