"""Which times the spacings visit, in closed form, and what they do with a schedule that goes where nothing is seen."""

import math

import pytest
import torch

from diffusion import schedule
from diffusion.ground.errors import UserError
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.times import SPACINGS, visit, with_jumps
from tests.helpers.exact import GaussianDenoiser
from tests.helpers.samplers import draw

MAKERS = [
    *(schedule.linear, schedule.cosine, schedule.sigmoid, schedule.laplace, schedule.quadratic),
    *(schedule.scaled_linear, schedule.VP, schedule.ContinuousCosine),
]
NOISE = -2 * math.log(80)  # log-SNR where EDM starts
IMAGE = -2 * math.log(0.002)


def even(values):
    torch.testing.assert_close(values.diff(), values.diff()[:1].expand(len(values) - 1))


@pytest.mark.parametrize("zero_terminal", [False, True])
@pytest.mark.parametrize("make", MAKERS)
def test_angle_turns_by_the_same_angle_in_every_step(make, zero_terminal):
    made = make(1000).with_zero_terminal_snr() if zero_terminal else make(1000)
    times = visit(made, "angle", 20, beyond=True)
    alpha, sigma = made(times)
    angles = torch.atan2(sigma, alpha)
    assert times[0] == 1000
    even(angles[zero_terminal:])  # a table with zero terminal SNR leaps from T - 1 to T, laplace's from a log-SNR of -3


@pytest.mark.parametrize("make", [schedule.cosine, schedule.linear, schedule.ContinuousCosine])
def test_log_snr_and_karras_are_even_in_their_own_unit_over_what_is_seen(make):
    """From EDM's sigma / alpha = 80, or T where that is less noisy, to 0.002, or to t = 1 where that is noisier; in the
    place of this end stands 0."""
    made = make(1000)
    first, last = max(made.log_snr(1000).item(), NOISE), min(made.log_snr(1).item(), IMAGE)
    for steps in (2, 10):
        log_snr = made.log_snr(visit(made, "log_snr", steps, beyond=True)[:-1])
        even(torch.cat([log_snr, torch.tensor([last])]))
        assert log_snr[0] == pytest.approx(first)
        alpha, sigma = made(visit(made, "karras", steps, beyond=True)[:-1])
        ramp = (sigma / alpha) ** (1 / 7)
        even(torch.cat([ramp, torch.tensor([math.exp(-last / 14)])]))
        assert ramp[0] == pytest.approx(math.exp(-first / 14))


def test_the_full_ones_are_even_between_t_and_1():
    """As every spacing by that name was before it had bounds: what files of format 0 mean."""
    made = schedule.cosine(1000)
    for steps in (2, 10):
        times = visit(made, "log_snr_full", steps, beyond=True)[:-1]
        even(made.log_snr(times))
        assert times[[0, -1]].tolist() == pytest.approx([1000, 1])
        times = visit(made, "karras_full", steps, beyond=True)[:-1]
        alpha, sigma = made(times)
        even((sigma / alpha) ** (1 / 7))
        assert times[[0, -1]].tolist() == pytest.approx([1000, 1])
    for name in ("log_snr_full", "karras_full"):
        with pytest.raises(UserError, match=r"zero_terminal_snr: use sampler\.times=log_snr or karras"):
            visit(made.with_zero_terminal_snr(), name, 10, beyond=True)


@pytest.mark.parametrize("zero_terminal", [False, True])
@pytest.mark.parametrize("T", [20, 1000])
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("times", ["log_snr", "karras"])
def test_x_is_noise_at_the_first_time_and_no_step_is_spent_above(times, make, T, zero_terminal):
    """The first time is T, or one below it where x is as noisy as EDM's first; the second is past that."""
    made = make(T).with_zero_terminal_snr() if zero_terminal else make(T)
    first, second = visit(made, times, 10, beyond=True)[:2]
    assert first == T or made.log_snr(first).item() == pytest.approx(NOISE)
    assert made.log_snr(first).item() <= max(NOISE, made.log_snr(T).item()) + 1e-6
    assert made.log_snr(second).item() > NOISE + 0.1


@pytest.mark.parametrize("times", SPACINGS)
@pytest.mark.parametrize("make", MAKERS)
def test_every_schedule_has_times_of_every_spacing(make, times):
    for T in (3, 20, 1000):
        for steps in (1, 2, 3):
            visited = visit(make(T), times, steps, beyond=True)
            assert visited.dtype == torch.float64
            assert visited.shape == (steps + 1,)
            assert (visited.diff() < 0).all()
            assert visited[0] <= T
            assert visited[-1] == 0


def test_a_time_that_would_be_visited_twice_is_refused():
    with pytest.raises(UserError, match=r"sampler.steps=2: more than this schedule has times for with times=log_snr"):
        visit(schedule.linear(1), "log_snr", 2, beyond=True)


def test_a_list_of_times_is_used_unchanged():
    denoise = GaussianDenoiser(schedule.linear(1000))
    listed = draw(DDIM(times=[1000, 500, 0]), denoise)
    assert torch.equal(listed, draw(DDIM(steps=2), denoise))
    for times in ([1000, 500], [500, 1000, 0], [1001, 0], [0], []):
        with pytest.raises(UserError, match="expected times that decrease from at most 1000 to 0"):
            draw(DDIM(times=times), denoise)
    with pytest.raises(UserError, match="the list of times has 2 steps"):
        draw(DDIM(times=[1000, 500, 0], steps=3), denoise)
    with pytest.raises(UserError, match=r"sampler.times=trailling: expected trailing, leading"):
        draw(DDIM(times="trailling", steps=3), denoise)


def test_jumps_walk_each_stretch_again():
    times = torch.tensor([50.0, 40, 30, 20, 10, 0])
    assert with_jumps(times, 2, 1).tolist() == times.tolist()
    walked = [50, 40, 30, 50, 40, 30, 20, 10, 30, 20, 10, 0, 10, 0]
    assert with_jumps(times, 2, 2).tolist() == walked
    assert with_jumps(times, 9, 3).tolist() == [50, *([40, 30, 20, 10, 0, 50] * 3)[:-1]]
