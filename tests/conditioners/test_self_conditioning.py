"""Self-conditioning: which prediction the network is shown, and for which images."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from diffusion import parametrization, process, schedule
from diffusion.conditioners.condition import PREVIOUS, Condition
from diffusion.denoiser import Denoiser
from diffusion.lit.training_inputs import TrainingPair
from diffusion.process import Noised
from diffusion.samplers.ddim import DDIM
from tests.helpers.lit_models import everything_model

pytestmark = pytest.mark.filterwarnings("ignore")


class Echo(nn.Module):
    """Says the previous x_0, and remembers it."""

    def forward(self, x, t, condition):
        self.shown = torch.zeros_like(x) if condition is None else condition.tensors[PREVIOUS]
        return self.shown


def test_a_self_conditioned_network_is_shown_its_last_prediction():
    network = Echo()
    denoise = Denoiser(network, schedule.linear(), parametrization.X0())
    x_T, shown = torch.ones(2, 1, 4, 4), []
    sampler = DDIM(steps=3)
    for state in sampler.trajectory(adding(denoise), x_T, noise=None):
        shown.append(getattr(network, "shown", None))
        assert state.x.shape == x_T.shape
    assert (shown[1] == 0).all()
    assert (shown[2] == 0.25).all()
    assert (shown[3] == 0.5).all()


def adding(denoiser):
    """The denoiser with 0.25 added to each prediction, so that it can be told from the one before."""

    class Added:
        schedule = denoiser.schedule

        def __call__(self, *args):
            found = denoiser(*args)
            return replace(found, x_0=found.x_0 + 0.25)

    return Added()


def test_in_training_half_of_the_images_are_shown_a_prediction():
    model = everything_model()
    x_0, eps = torch.randn(2, 6, 1, 8, 8)
    t, half = torch.full((6,), 10.0), torch.tensor([0, 2, 4])
    pair = TrainingPair(x_0, Condition.of(label=torch.zeros(6, dtype=torch.int64)), t, eps, torch.ones(6), half)
    with torch.no_grad():
        model.denoiser.network.conv_out.weight.normal_()
    noised = Noised.of(model.denoiser.schedule, x_0, pair.t, pair.eps)
    shown = model._with_previous(pair, noised).tensors[PREVIOUS]
    assert (shown[1::2] == 0).all()
    x_t = process.q_sample(model.denoiser.schedule, x_0, t, eps)
    torch.testing.assert_close(
        shown[::2], model.clip(model.denoiser(x_t, t, pair.condition).x_0)[::2], rtol=1e-4, atol=1e-5
    )
    assert not shown.requires_grad
