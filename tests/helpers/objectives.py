"""Weightings, schedules, and networks of known loss."""

from torch import nn

from diffusion import process, schedule
from diffusion.denoiser import Denoiser
from diffusion.losses import weighting

WEIGHTINGS = [
    weighting.Simple(), weighting.MinSNR(), weighting.SNR(), weighting.P2(), weighting.Sigmoid(), weighting.VLB(),
]  # fmt: skip
TABLES = [
    schedule.linear,
    schedule.cosine,
    schedule.sigmoid,
    schedule.quadratic,
    schedule.VP,
    schedule.ContinuousCosine,
]


def name(value):
    return getattr(value, "__name__", type(value).__name__)


class Says(nn.Module):
    """A network that always says the same thing."""

    def __init__(self, output):
        super().__init__()
        self.said = output

    def forward(self, x, t, y):
        return self.said


def loss_of(objective, denoiser, x_0, t, eps):
    return objective(denoiser, process.Noised.of(denoiser.schedule, x_0, t, eps))


def says_x_0(parametrization, made, batch, x_0):
    """The denoiser whose network says of the batch what stands for this x_0."""
    alpha, sigma = (scale.reshape(-1, 1, 1, 1) for scale in made(batch.t))
    c_skip, c_out = parametrization.coefficients(alpha, sigma)
    x_t = process.q_sample(made, batch.x_0, batch.t, batch.eps)
    return Denoiser(Says((x_0 - c_skip * x_t) / c_out), made, parametrization)
