"""Classifier-free guidance against its formula, and where it does not act."""

import pytest
import torch
from torch import nn

from diffusion import clipping, parametrization, schedule
from diffusion.conditioners.condition import Condition
from diffusion.denoiser import Denoiser, Frozen
from diffusion.ground.errors import UserError
from diffusion.guidance import Auto, ClassifierFree, Guided, TwoModels
from diffusion.samplers.ddim import DDIM
from diffusion.tasks.generate import generate
from tests.helpers.labels import labels

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
    return Denoiser(Told(), MADE, parametrization.Eps())


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


def test_guidance_is_inside_clipping_and_works_with_a_sampler(denoiser):
    denoise = clipping.Clip(Guided(denoiser, ClassifierFree(scale=3.0)), clipping.Static())
    [(_, states)] = generate(denoise, DDIM(steps=5), (1, 4, 4), torch.arange(3), 0, condition=Y)
    assert states[-1].abs().max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "snr"}, "guidance.of='snr'"),
        ({"interval": (5, 1)}, "guidance.interval="),
        ({"interval": (5,)}, "guidance.interval="),
        ({"rescale": 2}, "guidance.rescale=2"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        ClassifierFree(**options)


class Weak(nn.Module):
    """Says eps = x / 3, whatever it is given."""

    def forward(self, x, t, condition):
        return x / 3


def auto(scale, **options):
    return Auto(scale, weaker=Frozen(Denoiser(Weak(), MADE, parametrization.Eps())), **options)


@pytest.mark.parametrize("condition", [Y, None])
def test_a_weaker_model_is_led_away_from_with_and_without_a_condition(denoiser, x_t, condition):
    guided = auto(3.0).wrap(denoiser)(x_t, 500, condition)
    good = denoiser(x_t, 500, condition).eps
    torch.testing.assert_close(guided.eps, x_t / 3 + 3 * (good - x_t / 3), rtol=1e-3, atol=1e-3)


def test_a_weaker_model_at_scale_1_is_not_asked(denoiser, x_t):
    guided = auto(1.0).wrap(denoiser)
    assert torch.equal(guided(x_t, 500, Y).x_0, denoiser(x_t, 500, Y).x_0)
    assert Auto(1.0).wrap(denoiser)(x_t, 500).nfe == 1


@pytest.mark.parametrize(
    ("guidance", "condition", "nfe"),
    [(ClassifierFree(2.0), Y, 8), (ClassifierFree(2.0), None, 4), (ClassifierFree(1.0), Y, 4), (auto(2.0), None, 8)],
)
def test_both_evaluations_are_counted(denoiser, x_t, guidance, condition, nfe):
    *_, last = DDIM(steps=4).trajectory(guidance.wrap(denoiser), x_t, lambda: x_t, condition)
    assert last.nfe == nfe


def test_a_weaker_model_is_a_part_of_nothing(denoiser):
    holder = nn.Module()
    holder.guidance = auto(2.0)
    assert not list(holder.parameters())
    assert not holder.state_dict()


def test_without_a_weaker_model_none_is_led_away_from(denoiser):
    with pytest.raises(UserError, match="has none: choose the guidance at sampling"):
        Auto(2.0).wrap(denoiser)


def test_a_subclass_defines_the_input_of_the_second_model(denoiser, x_t):
    class Unasked(TwoModels):
        def pair(self, denoiser, x_t, t, condition):
            return denoiser(x_t, t, condition), self.weaker(x_t, t, condition.without())

    guided = Unasked(3.0, weaker=Frozen(denoiser)).wrap(denoiser)(x_t, 500, Y)
    torch.testing.assert_close(guided.x_0, ClassifierFree(3.0).wrap(denoiser)(x_t, 500, Y).x_0)
    with pytest.raises(UserError, match="has none: choose the guidance at sampling"):
        Unasked(3.0).wrap(denoiser)


@pytest.mark.parametrize("scale", ["3", float("nan"), float("inf"), None])
def test_a_scale_is_a_number(scale):
    with pytest.raises(UserError, match=f"guidance.scale={scale!r}: expected a number"):
        ClassifierFree(scale)
