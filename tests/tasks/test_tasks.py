"""Where each task begins and what it holds fast, on data whose denoiser is exact."""

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import process, schedule
from diffusion.denoiser import Prediction
from diffusion.ground.errors import UserError
from diffusion.ground.random import Streams
from diffusion.samplers.ddim import DDIM, invert
from diffusion.samplers.ddpm import DDPM
from diffusion.samplers.dpm_solver_pp import DPMSolverPP
from diffusion.samplers.heun import Heun
from diffusion.samplers.times import with_jumps
from diffusion.samplers.unipc import UniPC
from diffusion.spaces.pixels import Pixels
from diffusion.tasks.generate import generate
from diffusion.tasks.img2img import Img2Img
from diffusion.tasks.inpaint import Inpaint
from diffusion.tasks.interpolate import Interpolate, slerp
from tests.helpers.exact import GaussianDenoiser, MixtureDenoiser

SHAPE = (1, 4, 4)
SPACE = Pixels(SHAPE)


class CorrelatedDenoiser:
    """E[x_0 | x_t] where all pixels are standard normal with the same correlation to each other."""

    def __init__(self, schedule, correlation, pixels):
        self.schedule = schedule
        self.covariance = torch.full((pixels, pixels), correlation).fill_diagonal_(1).double()

    def __call__(self, x_t, t, condition=None):
        t = torch.as_tensor(t, dtype=torch.float64)
        alpha, sigma = self.schedule(t)
        gain = (
            alpha
            * self.covariance
            @ torch.linalg.inv(
                alpha**2 * self.covariance + sigma**2 * torch.eye(len(self.covariance), dtype=torch.float64)
            )
        )
        x_0 = (x_t.flatten(1).double() @ gain).reshape(x_t.shape).to(x_t)
        return Prediction(x_0, x_t, t, alpha, sigma)


def draw(task, sampler, denoise, n, shape=SHAPE, **options):
    batches = generate(denoise, sampler, shape, torch.arange(n), seed=0, task=task, **{"batch_size": n} | options)
    return torch.cat([states[-1] for _, states in batches])


@pytest.fixture
def picture(tmp_path):
    """A function that writes grey values (H, W) as a PNG and returns its path."""

    def write(values, name="picture.png"):
        Image.fromarray(np.asarray(values, dtype=np.uint8)).save(tmp_path / name)
        return str(tmp_path / name)

    return write


def test_inversion_leads_back_to_the_image():
    denoise, x_0 = MixtureDenoiser(schedule.cosine(1000)), torch.linspace(-0.9, 0.9, 16).reshape(1, 1, 4, 4).double()
    sampler, errors = DDIM(steps=50), []
    for iterations in (1, 3, 10):
        x_T = invert(denoise, x_0, sampler.times(denoise.schedule), iterations=iterations)
        *_, last = sampler.trajectory(denoise, x_T, noise=None)
        errors.append((last.x - x_0).abs().max().item())
    assert errors[2] < 1e-5
    assert errors[1] < 0.25 * errors[0]


def test_inversion_of_a_gaussian_is_its_quantile():
    """The flow of a Gaussian is linear: the noise of an image is its distance from the mean in standard deviations."""
    denoise = GaussianDenoiser(schedule.VP(), mean=0.3, std=0.5)
    x_0 = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4).double()
    x_T = invert(denoise, x_0, DDIM(steps=1000).times(denoise.schedule))
    torch.testing.assert_close(x_T, (x_0 - 0.3) / 0.5, rtol=0.01, atol=0.02)


@pytest.mark.parametrize("sampler", [DDPM(steps=200), DDIM(steps=200, eta=1.0)])
def test_img2img_draws_from_the_posterior_at_t(picture, sampler):
    denoise, t = GaussianDenoiser(schedule.cosine(1000), mean=0.3, std=0.5), 400
    task = Img2Img(picture(np.full((16, 16), 255)), t, Pixels((1, 16, 16)))
    x_0 = draw(task, sampler, denoise, n=32, shape=(1, 16, 16)).double()
    alpha, sigma = denoise.schedule(t)
    gain = alpha * 0.25 / (alpha**2 * 0.25 + sigma**2)
    left = 0.25 * sigma**2 / (alpha**2 * 0.25 + sigma**2)  # variance of x_0 given x_t
    assert x_0.mean() == pytest.approx((0.3 + gain * alpha * 0.7).item(), abs=0.02)
    assert x_0.var() == pytest.approx((left + (gain * sigma) ** 2).item(), rel=0.06)


@pytest.mark.parametrize("t", [0, -1, 1001])
def test_img2img_from_an_impossible_time_is_refused(picture, t):
    denoise = GaussianDenoiser(schedule.cosine(1000))
    expected = "a time in steps, above 0 and at most T=1000" if t > 0 else "a number above 0, or null"
    with pytest.raises(UserError, match=f"task.t={t}: expected {expected}"):
        draw(Img2Img(picture(np.zeros((4, 4))), t, SPACE), DDIM(steps=5), denoise, n=1)


def test_img2img_from_t_is_what_generation_does_below_t(picture):
    """With the noise known, the state at t is q_sample, and the times below t are the sampler's own."""
    denoise, task = GaussianDenoiser(schedule.cosine(1000)), Img2Img(picture(np.full((4, 4), 255)), 450, SPACE)
    sampler = DDIM(steps=10)
    assert task.times(sampler, denoise.schedule).tolist() == [450, 400, 300, 200, 100, 0]
    [(_, states)] = generate(
        denoise,
        sampler,
        SHAPE,
        torch.arange(2),
        seed=0,
        task=task,
        keep=range(6),
    )
    eps = Streams(0, "sample", torch.arange(2), SHAPE).normal()
    torch.testing.assert_close(states[0], process.q_sample(denoise.schedule, torch.ones(2, *SHAPE), 450, eps))


def test_img2img_begins_halfway_by_default(picture):
    assert Img2Img(picture(np.zeros((4, 4))), None, SPACE).times(DDIM(steps=4), schedule.cosine(20))[0] == 10


SOLVERS = [DDPM(steps=20), DDIM(steps=20), Heun(steps=20), DPMSolverPP(steps=20), UniPC(steps=20)]


@pytest.mark.parametrize("sampler", SOLVERS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("resamples", [1, 3])
def test_inpainting_keeps_what_is_known(picture, sampler, resamples):
    values = np.arange(16).reshape(4, 4) * 16
    white_below = np.repeat([[0], [0], [255], [255]], 4, axis=1)
    task = Inpaint(picture(values), picture(white_below, "mask.png"), resamples, 5, SPACE)
    x_0 = draw(task, sampler, MixtureDenoiser(schedule.cosine(1000)), n=3)
    known = torch.tensor(values[:2], dtype=torch.float32) / 127.5 - 1
    torch.testing.assert_close(x_0[:, 0, :2], known.expand(3, 2, 4), rtol=0, atol=1e-5)
    assert torch.isfinite(x_0).all()
    assert x_0[:, 0, 2:].var() > 0.05


def test_resampling_lets_the_unknown_follow_the_known(picture):
    """Of two pixels with correlation 0.9 one is known to be 1: the other has mean 0.9 and variance 0.19. Replacing the
    known pixel alone does not get there, resampling does (Lugmayr et al. 2022, section 4.2)."""
    shape, denoise = (1, 2, 2), CorrelatedDenoiser(schedule.cosine(1000), 0.9, pixels=4)
    image, mask = picture(np.full((2, 2), 255)), picture([[0, 255], [255, 255]], "mask.png")
    bias = {}
    for resamples in (1, 10):
        x_0 = draw(Inpaint(image, mask, resamples, 10, Pixels(shape)), DDPM(steps=100), denoise, n=400, shape=shape)
        bias[resamples] = abs(x_0[:, 0, 1, 1].mean() - 0.9)
        variance = x_0[:, 0, 1, 1].var()
    assert bias[10] < 0.1
    assert bias[1] > 2 * bias[10]
    assert variance == pytest.approx(0.19, rel=0.35)


@pytest.mark.parametrize(("grey", "message"), [(0, "all black, nothing is drawn"), (255, "all white, nothing is kept")])
def test_a_mask_without_an_edge_is_refused(picture, grey, message):
    with pytest.raises(UserError, match=message):
        Inpaint(picture(np.zeros((4, 4))), picture(np.full((4, 4), grey), "mask.png"), 1, 1, SPACE)


@pytest.mark.parametrize(("resamples", "jump", "key"), [(0, 1, "resamples"), (1, 0, "jump"), (1.5, 1, "resamples")])
def test_stretches_are_walked_at_least_once(picture, resamples, jump, key):
    image, mask = picture(np.zeros((4, 4))), picture(np.eye(4) * 255, "mask.png")
    with pytest.raises(UserError, match=rf"task\.{key}=.*: expected a whole number, 1 or more"):
        Inpaint(image, mask, resamples, jump, SPACE)


def test_jumps_walk_each_stretch_again():
    times = torch.tensor([50.0, 40, 30, 20, 10, 0])
    assert with_jumps(times, 2, 1).tolist() == times.tolist()
    walked = [50, 40, 30, 50, 40, 30, 20, 10, 30, 20, 10, 0, 10, 0]
    assert with_jumps(times, 2, 2).tolist() == walked
    assert with_jumps(times, 9, 3).tolist() == [50, *([40, 30, 20, 10, 0, 50] * 3)[:-1]]


def test_interpolation_between_seeds_goes_from_one_image_to_the_other():
    denoise, sampler = MixtureDenoiser(schedule.cosine(1000)), DDIM(steps=20)
    rows = draw(Interpolate("3", "8", 5, None, SPACE), sampler, denoise, n=10).unflatten(0, (2, 5))
    for seed, index in ((3, 0), (8, -1)):
        [(_, states)] = generate(denoise, sampler, SHAPE, torch.arange(2), seed)
        torch.testing.assert_close(rows[:, index], states[-1])
    steps = (rows[:, 1:] - rows[:, :-1]).abs().flatten(2).mean(2)
    assert (steps > 0).all()
    apart = draw(Interpolate("3", "8", 5, None, SPACE), sampler, denoise, n=10, batch_size=3).unflatten(0, (2, 5))
    assert torch.equal(apart, rows)


def test_interpolation_between_images_reproduces_both(picture):
    denoise = MixtureDenoiser(schedule.cosine(1000))
    values = [np.arange(16).reshape(4, 4) * 12 + 30, np.arange(16)[::-1].reshape(4, 4) * 10]
    files = [picture(value, f"{number}.png") for number, value in enumerate(values)]
    x_0 = draw(Interpolate(*files, 4, None, SPACE), DDIM(steps=50), denoise, n=4)
    for index, value in ((0, values[0]), (-1, values[1])):
        expected = torch.tensor(value.copy(), dtype=torch.float32) / 127.5 - 1
        torch.testing.assert_close(x_0[index, 0], expected, rtol=0, atol=5e-3)


def test_interpolation_from_a_time_shares_the_noise_of_a_row(picture):
    """Ho et al. 2020, Figure 8: two equal ends give a row of equal images, by an ancestral sampler too."""
    file = picture(np.arange(16).reshape(4, 4) * 12)
    denoise = MixtureDenoiser(schedule.cosine(1000))
    rows = draw(Interpolate(file, file, 3, 500, SPACE), DDPM(steps=20), denoise, n=6).unflatten(0, (2, 3))
    torch.testing.assert_close(rows, rows[:, :1].expand_as(rows), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(rows[0], rows[1], atol=0.05)


def test_slerp_keeps_the_length_and_ends_where_it_should():
    a, b = torch.randn(2, 5, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)
    weight = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    mixed = slerp(a, b, weight)
    torch.testing.assert_close(mixed.flatten(1).norm(dim=1), a.flatten(1).norm(dim=1))
    torch.testing.assert_close(mixed[0], a[0])
    torch.testing.assert_close(mixed[-1], b[-1])
    torch.testing.assert_close(slerp(a, a, weight), a)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("1", "2", 1, None), "task.points=1: expected a whole number, 2 or more"),
        (("1", "2", 4.5, None), "task.points=4.5: expected a whole number"),
        ((-1, "2", 5, None), "task.start=-1: expected a seed, a whole number, 0 or more, or the file of a picture"),
        (("1", "2", 5, 400.0), "only pictures are diffused up to t"),
        (("1", "nowhere.png", 5, None), "task.end=nowhere.png: not a readable picture"),
    ],
)
def test_impossible_interpolations_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Interpolate(*arguments, SPACE)
