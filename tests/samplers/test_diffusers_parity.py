"""The same numbers as diffusers' schedulers, from the same noise and the same network outputs."""

import diffusers
import pytest
import torch
from diffusers.schedulers import scheduling_ddpm
from torch import nn

from diffusion import clipping, parametrization, schedule
from diffusion.denoiser import Denoiser
from diffusion.ground.random import Streams
from diffusion.samplers import dpm_solver_pp
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM
from diffusion.samplers.dpm_solver_pp import DPMSolverPP
from diffusion.samplers.euler import Euler
from diffusion.samplers.heun import Heun
from diffusion.samplers.unipc import UniPC

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
SHAPE = (1, 4, 4)
STEPS = [1, 2, 5, 10, 20, 50]
SPACINGS = ["trailing", "leading", "linspace"]


def eps(x, t):
    """A smooth stand-in for a network; t is 0..T-1, as published networks count."""
    return 0.7 * x + 0.2 * torch.sin(2 * x) * torch.cos(t / 300).reshape(-1, *[1] * (x.ndim - 1))


class Network(nn.Module):
    def forward(self, x, t, y):
        return eps(x, t.double())


def streams():
    made = Streams(0, "sample", torch.arange(2), SHAPE)
    return lambda: made.normal().double()


def ours(sampler, their_times, rule=None):
    """Walks diffusers' own times, theirs counted from 0."""
    sampler.spacing, sampler.steps = [*(float(t) + 1 for t in their_times), 0.0], None
    denoise = clipping.Clip(Denoiser(Network(), schedule.linear(), parametrization.Eps()), rule or clipping.Unclipped())
    noise = streams()
    *_, last = sampler.trajectory(denoise, noise(), noise)
    return last.x


def theirs(scheduler, start=1.0, **options):
    noise = streams()
    x = noise() * start
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        given = {name: make(noise) for name, make in options.items()}
        x = scheduler.step(eps(scaled, t.double()), t, x, **given).prev_sample
    return x


def scheduler_of(name, steps, spacing="trailing", **config):
    made = getattr(diffusers, name)(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, timestep_spacing=spacing, **config
    )
    made.betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # theirs are float32
    made.alphas = 1 - made.betas
    made.alphas_cumprod = made.alphas.cumprod(0)
    made.set_timesteps(steps)
    return made


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", STEPS)
def test_our_spacings_are_theirs(spacing, steps):
    made = DDIM(steps=steps, times=spacing).times(schedule.linear())
    if (steps, spacing) == (1, "linspace"):
        pytest.skip("one step of linspace: theirs starts from t = 1, ours from T")
    assert made.tolist() == [*(t + 1 for t in scheduler_of("DDIMScheduler", steps, spacing).timesteps.tolist()), 0]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [2, 10, 1000])
def test_ddpm(monkeypatch, steps, spacing, variance, clip):
    if variance == "fixed_large" and spacing == "trailing" and steps < 1000:
        pytest.skip("theirs adds noise in the last step unless it starts at t = 1")
    scheduler = scheduler_of("DDPMScheduler", steps, spacing, clip_sample=clip, variance_type=variance)
    noise = streams()
    x = noise()
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: noise())
    for t in scheduler.timesteps:
        x = scheduler.step(eps(x, t.double()), t, x).prev_sample
    rule = clipping.Static() if clip else clipping.Unclipped()
    close(ours(DDPM(variance=variance), scheduler.timesteps, rule), x)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("steps", STEPS)
def test_ddim(steps, spacing, eta):
    scheduler = scheduler_of("DDIMScheduler", steps, spacing, clip_sample=False)
    options = {"eta": lambda _: eta} | ({"variance_noise": lambda noise: noise()} if eta else {})
    close(ours(DDIM(eta=eta), scheduler.timesteps), theirs(scheduler, **options))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("stochastic", [False, True])
def test_dpm_solver_pp(steps, spacing, order, stochastic):
    kind = "sde-dpmsolver++" if stochastic else "dpmsolver++"
    scheduler = scheduler_of("DPMSolverMultistepScheduler", steps, spacing, solver_order=order, algorithm_type=kind)
    options = {"variance_noise": lambda noise: noise()} if stochastic else {}
    close(ours(DPMSolverPP(order=order, stochastic=stochastic), scheduler.timesteps), theirs(scheduler, **options))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", STEPS)
def test_dpm_solver_pp_of_order_3_but_for_its_last_weight(monkeypatch, steps, spacing):
    """The authors weigh the second difference by half of its integral, which makes their third order a second (see
    test_orders). With that weight in place of ours, everything else is the same."""
    right = dpm_solver_pp.weights_of

    def published(h, order):
        weights = right(h, order)
        return weights if order < 3 else [*weights[:2], weights[2] / 2]

    monkeypatch.setattr(dpm_solver_pp, "weights_of", published)
    scheduler = scheduler_of("DPMSolverMultistepScheduler", steps, spacing, solver_order=3)
    close(ours(DPMSolverPP(order=3), scheduler.timesteps), theirs(scheduler))


@pytest.mark.parametrize(
    "spacing", ["trailing", "leading"]
)  # their linspace falls between steps, interpolated otherwise
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_euler_and_heun(steps, spacing, name):
    scheduler = scheduler_of(name, steps, spacing)
    sampler = Euler() if name.startswith("Euler") else Heun()
    times = list(dict.fromkeys(scheduler.timesteps.tolist()))
    start = (1 + scheduler.sigmas[0].double() ** 2).sqrt()  # theirs lives in x / alpha
    close(ours(sampler, times), theirs(scheduler, start=start))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(steps, spacing, order):
    scheduler = scheduler_of("UniPCMultistepScheduler", steps, spacing, solver_order=order, solver_type="bh2")
    close(ours(UniPC(order=order), scheduler.timesteps), theirs(scheduler))
