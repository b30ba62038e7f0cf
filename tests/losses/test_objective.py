"""Objectives: one loss in different units, known optima, and every combination."""

import itertools

import pytest
import torch
from torch import nn

from diffusion import parametrization, schedule
from diffusion.denoiser import Denoiser
from diffusion.ground.errors import UserError
from diffusion.losses import weighting
from diffusion.losses.objective import L1, L2, VLB, Huber, Hybrid, by_quarter
from tests.helpers.exact import GaussianDenoiser
from tests.helpers.objectives import TABLES, WEIGHTINGS, Says, loss_of, name, says_x_0

PARAMETRIZATIONS = [
    parametrization.Eps(),
    parametrization.X0(),
    parametrization.V(),
    parametrization.EDM(),
    parametrization.EDM(1.0),
]


@pytest.mark.parametrize("objective", [L2, L1, Huber], ids=name)
@pytest.mark.parametrize("weight", WEIGHTINGS, ids=name)
def test_the_loss_does_not_depend_on_what_the_network_predicts(weight, objective, batch):
    """The same x_0, said as eps, x_0, v or EDM's F, costs the same."""
    made, wrong = schedule.cosine(1000), batch.x_0 + 0.1 * torch.sin(5 * batch.x_0)
    losses = [
        loss_of(objective(weight), says_x_0(parametrization, made, batch, wrong), *batch)
        for parametrization in PARAMETRIZATIONS
    ]
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-6, atol=1e-12)


def test_simple_is_the_plain_mse_and_l1_the_plain_distance_of_eps(batch):
    made = schedule.linear()
    message = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    denoiser, error = Denoiser(Says(message), made, parametrization.Eps()), message - batch.eps
    torch.testing.assert_close(loss_of(L2(weighting.Simple()), denoiser, *batch), error.square().mean((1, 2, 3)))
    torch.testing.assert_close(loss_of(L1(weighting.Simple()), denoiser, *batch), error.abs().mean((1, 2, 3)))
    huber = nn.functional.huber_loss(message, batch.eps, reduction="none", delta=0.5).mean((1, 2, 3))
    torch.testing.assert_close(loss_of(Huber(weighting.Simple(), delta=0.5), denoiser, *batch), huber)


def test_the_best_variance_is_learnt_between_the_two_bounds(batch):
    """L_hybrid moves only the variance by the bound: its gradient there is L_vlb's, and the mean's is L_simple's."""
    made = schedule.cosine(1000)
    message = torch.zeros(6, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    denoiser = Denoiser(Says(message), made, parametrization.Eps())
    [hybrid] = torch.autograd.grad(loss_of(Hybrid(weighting.Simple(), scale=1.0), denoiser, *batch).sum(), message)
    [bound] = torch.autograd.grad(loss_of(VLB(weighting.Simple()), denoiser, *batch).sum(), message)
    [simple] = torch.autograd.grad(loss_of(L2(weighting.Simple()), denoiser, *batch).sum(), message)
    torch.testing.assert_close(hybrid[:, 1], bound[:, 1])
    torch.testing.assert_close(hybrid[:, 0], simple[:, 0])
    assert bound[:, 1].abs().min() > 0


def test_the_bound_has_no_weighting_besides():
    with pytest.raises(UserError, match="loss=vlb has its own weights"):
        VLB(weighting.MinSNR())


class Linear(nn.Module):
    """Enough for Gaussian data: at each of a few t an affine function of x."""

    def __init__(self, times, channels=1):
        super().__init__()
        self.times = times
        self.gain = nn.Parameter(torch.zeros(len(times), channels))
        self.bias = nn.Parameter(torch.zeros(len(times), channels))

    def forward(self, x, t, y):
        row = torch.searchsorted(self.times, t.double() + 1)
        return self.gain[row, :, None, None] * x + self.bias[row, :, None, None]


OBJECTIVES = [*(L2(weight) for weight in WEIGHTINGS), Huber(weighting.Simple(), delta=5.0), L1(weighting.Simple()),
    Hybrid(weighting.Simple()), VLB(weighting.Simple())]  # fmt: skip


OPTIMA = [
    *((objective, parametrization.V()) for objective in OBJECTIVES),
    *((L2(weighting.Simple()), one) for one in PARAMETRIZATIONS),
]


@pytest.mark.parametrize(
    ("objective", "parametrization"), OPTIMA, ids=lambda one: f"{name(one)} {name(getattr(one, 'weighting', None))}"
)
def test_every_objective_has_its_optimum_at_the_exact_denoiser(objective, parametrization):
    """Gaussian data: the posterior is symmetric, so its mean is the optimum of each distance. A network that can be
    exact is trained until it is."""
    made, times = schedule.cosine(1000), torch.tensor([50.0, 300, 600, 900], dtype=torch.float64)
    exact = GaussianDenoiser(made, mean=0.3, std=0.5)
    generator = torch.Generator().manual_seed(0)
    network = Linear(times, 2 if objective.learns_variance else 1).double()
    denoiser = Denoiser(network, made, parametrization)
    t = times.repeat_interleave(64)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    for _ in range(200):
        noise, eps = torch.randn(2, len(t), 1, 4, 4, generator=generator, dtype=torch.float64)
        loss = loss_of(objective, denoiser, 0.3 + 0.5 * noise, t, eps).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    for at in times:
        x_t = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
        alpha, sigma = made(at)
        learnt, right = denoiser(x_t, at), exact(x_t, at)
        torch.testing.assert_close(alpha / sigma * learnt.x_0, alpha / sigma * right.x_0, rtol=0, atol=0.08)


@pytest.mark.parametrize("make", TABLES, ids=name)
def test_every_combination_takes_a_step(make):
    """Prediction x loss x weighting x schedule: a finite loss with a gradient, and a step that lowers it."""
    made, generator = make(1000), torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 8, 1, 4, 4, generator=generator)
    t = torch.tensor([1.0, 2, 10, 250, 500, 750, 999, 1000])
    for predicted, kind, weight in itertools.product(PARAMETRIZATIONS[:4], (L2, L1, Huber, Hybrid), WEIGHTINGS):
        objective = kind(weight)
        network = nn.Conv2d(1, 2 if objective.learns_variance else 1, 1)
        network.forward = lambda x, t, condition, conv=network: nn.functional.conv2d(x, conv.weight, conv.bias)
        denoiser = Denoiser(network, made, predicted)
        loss = loss_of(objective, denoiser, x_0, t, eps).mean()
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        size = sum(gradient.square().sum() for gradient in gradients)
        message = f"{name(predicted)} {kind.__name__} {name(weight)}"
        assert torch.isfinite(loss), message
        assert size > 0, message
        if kind is Hybrid:  # which is no gradient of its own value: the bound's is stopped at the mean
            continue
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= 1e-3 * gradient / size.sqrt()
            assert loss_of(objective, denoiser, x_0, t, eps).mean() < loss, message


def test_quarters_of_t():
    t = torch.tensor([1.0, 250, 251, 500, 501, 750, 751, 1000])
    sums, counts = by_quarter(torch.arange(8.0), t, 1000)
    assert counts.tolist() == [2, 2, 2, 2]
    assert sums.tolist() == [1, 5, 9, 13]
