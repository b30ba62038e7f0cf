"""Classifier-free guidance against its formula, and where it does not act."""

import pytest
import torch
from torch import nn

from diffusion import clipping, prediction, schedule
from diffusion.condition import Condition
from diffusion.denoiser import Denoiser
from diffusion.errors import UserError
from diffusion.guidance import ClassifierFree, Guided
from diffusion.samplers.ddim import DDIM
from diffusion.tasks.generate import generate
from tests.labels import labels

MADE = schedule.cosine(1000)


class Told(nn.Module):
    """A network that says eps = x / 2 without a label and something else with one; it counts the images it sees."""

    seen = 0

    def forward(self, x, t, condition):
        self.seen += len(x)
        y = labels(condition, x)
        return torch.where((y < 0).reshape(-1, 1, 1, 1), x / 2, x / 2 + torch.sin(x) * (1 + y.reshape(-1, 1, 1, 1)))


@pytest.fixture
def denoiser():
    return Denoiser(Told(), MADE, prediction.Eps())


@pytest.fixture
def x_t():
    return torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


Y = Condition.of(label=torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("t", [1, 500, torch.tensor([1.0, 500, 1000])])
def test_eps_is_extrapolated(denoiser, x_t, t):
    guided = Guided(denoiser, ClassifierFree(scale=3.0))(x_t, t, Y)
    none, given = denoiser(x_t, t, None).eps, denoiser(x_t, t, Y).eps
    torch.testing.assert_close(guided.eps, none + 3 * (given - none), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(guided.x_t, x_t)
    assert guided.alpha.shape == torch.as_tensor(t).shape


def test_scale_0_is_unconditional_and_scale_1_costs_one_evaluation(denoiser, x_t):
    torch.testing.assert_close(Guided(denoiser, ClassifierFree(scale=0.0))(x_t, 500, Y).x_0, denoiser(x_t, 500).x_0)
    denoiser.network.seen = 0
    assert torch.equal(Guided(denoiser, ClassifierFree(scale=1.0))(x_t, 500, Y).x_0, denoiser(x_t, 500, Y).x_0)
    assert denoiser.network.seen == 6


@pytest.mark.parametrize(("of", "interval"), [("t", (200, 800)), ("sigma", (0.3, 3.0))])
def test_outside_its_interval_guidance_costs_and_does_nothing(denoiser, x_t, of, interval):
    guided = Guided(denoiser, ClassifierFree(scale=3.0, interval=interval, of=of))
    for t, acts in ((100, False), (500, True), (900, False)):
        denoiser.network.seen = 0
        x_0 = guided(x_t, t, Y).x_0
        assert denoiser.network.seen == (6 if acts else 3)
        assert torch.equal(x_0, denoiser(x_t, t, Y).x_0) != acts


def test_rescale_gives_back_the_standard_deviation(denoiser, x_t):
    def stds(rescale):
        return Guided(denoiser, ClassifierFree(scale=5.0, rescale=rescale))(x_t, 500, Y).v.flatten(1).std(dim=1)

    given = denoiser(x_t, 500, Y).v.flatten(1).std(dim=1)
    torch.testing.assert_close(stds(1.0), given, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(stds(0.5), (given + stds(0.0)) / 2, rtol=1e-3, atol=1e-4)
    assert (stds(0.0) > given).all()


def test_guidance_stands_inside_clipping_and_works_with_a_sampler(denoiser):
    denoise = clipping.Clip(Guided(denoiser, ClassifierFree(scale=3.0)), clipping.Static())
    [(_, states)] = generate(denoise, DDIM(steps=5), (1, 4, 4), torch.arange(3), 0, condition=Y)
    assert states[-1].abs().max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"of": "snr"}, "guidance.of=snr"),
        ({"interval": (5, 1)}, "guidance.interval="),
        ({"interval": (5,)}, "guidance.interval="),
        ({"rescale": 2}, "guidance.rescale=2"),
    ],
)
def test_options_are_checked(options, said):
    with pytest.raises(UserError, match=said):
        ClassifierFree(**options)
