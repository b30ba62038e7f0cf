"""Profiles of averages against closed forms, and post-hoc coefficients against profiles summed step by step."""

import numpy as np
import pytest

from diffusion.ground.errors import UserError
from diffusion.optimization.averages import Decay, HalfLife, Power, coefficients, sigma_rel_to_gamma, widths


def run_weights(decays):
    """How much each step weighs in the end, of averages with these d_1 .. d_n: w_i = (1 - d_i) * prod_{j > i} d_j."""
    decays = np.asarray(decays)
    later = np.append(np.cumprod(decays[::-1])[::-1][1:], 1.0)
    return (1 - decays) * later


def power_weights(n, sigma_rel, end=None):
    """The same of a power profile that stops at step `end`, in closed form."""
    end, exponent = end or n, sigma_rel_to_gamma(sigma_rel) + 1
    i = np.minimum(np.arange(n + 1), end)
    return np.diff((i / end) ** exponent)


def test_decay_warms_up():
    assert Decay(0.99).decays(1) == [2 / 11]
    assert Decay(0.99).decays(890) == [891 / 900]
    assert Decay(0.99).decays(10**6) == [0.99]
    assert Decay(0).names == Decay(0).decays(5) == []


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_half_lives_are_edms(batch_size):
    profiles = HalfLife([1000, 40_000])
    assert profiles.names == ["half_life_1000", "half_life_40000"]
    assert profiles.decays(1, batch_size) == [0, 0]
    for step in (2, 10, 500, 10**6):
        seen = (step - 1) * batch_size  # EDM's cur_nimg
        expected = [0.5 ** (batch_size / min(half_life, seen * 0.05)) for half_life in (1000, 40_000)]
        np.testing.assert_allclose(profiles.decays(step, batch_size), expected, rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 10])
def test_images_a_half_life_ago_weigh_half(batch_size):
    late = 10**7
    decays = [HalfLife([1000]).decays(late + i, batch_size)[0] for i in range(1000 // batch_size)]
    np.testing.assert_allclose(np.prod(decays), 0.5, rtol=1e-9)


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.28])
def test_power_averages_have_their_width_and_their_closed_form(sigma_rel):
    n, gamma = 5000, sigma_rel_to_gamma(sigma_rel)
    weights = run_weights([Power([sigma_rel]).decays(step)[0] for step in range(1, n + 1)])
    np.testing.assert_allclose(weights, power_weights(n, sigma_rel), rtol=1e-6, atol=1e-15)
    t = (np.arange(n) + 0.5) / n
    mean = weights @ t
    np.testing.assert_allclose(weights.sum(), 1)
    np.testing.assert_allclose(mean, (gamma + 1) / (gamma + 2), rtol=1e-4)
    np.testing.assert_allclose(np.sqrt(weights @ (t - mean) ** 2), sigma_rel, rtol=1e-3)


def test_gamma_is_the_papers():
    assert sigma_rel_to_gamma(0.05) == pytest.approx(16.97, abs=0.005)
    assert sigma_rel_to_gamma(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("least", [8, 16, 40])
@pytest.mark.parametrize("sigma_rel", [0.02, 0.03, 0.08, 0.15, 0.25])
def test_what_coefficients_miss_is_what_the_summed_profiles_miss(sigma_rel, least):
    n = 4000
    steps, widths = np.repeat(np.arange(1, least + 1) * n // least, 2), [0.1, 0.05] * least
    x, missed = coefficients(steps, widths, n, sigma_rel)
    total = x @ [power_weights(n, width, step) for width, step in zip(widths, steps, strict=True)]
    target = power_weights(n, sigma_rel)
    np.testing.assert_allclose(x.sum(), 1)
    np.testing.assert_allclose(missed, np.linalg.norm(total - target) / np.linalg.norm(target), rtol=0.02)


def test_no_other_combination_is_closer():
    steps, widths = np.repeat([1000, 2000, 3000], 2), [0.1, 0.05] * 3
    profiles = np.array([power_weights(3000, width, step) for width, step in zip(widths, steps, strict=True)])
    best = np.linalg.lstsq(profiles.T, power_weights(3000, 0.08), rcond=None)[0]
    np.testing.assert_allclose(coefficients(steps, widths, 3000, 0.08)[0], best / best.sum(), atol=2e-3)


def test_a_width_that_is_there_is_taken_as_it_is():
    x, missed = coefficients([100, 100, 200, 200], [0.1, 0.05] * 2, 200, 0.05)
    np.testing.assert_allclose(x, [0, 0, 0, 1], atol=1e-10)
    assert missed < 1e-6


def test_widths_are_known_by_name():
    names = Power([0.1, 0.0512345678]).names
    assert widths([*names, "decay", "half_life_1000"]) == {names[0]: 0.1, names[1]: 0.0512345678}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Decay(1.0), "ema.decay=1.0: expected a number, 0 or more and below 1"),
        (lambda: Decay(-0.1), "ema.decay=-0.1: expected a number, 0 or more and below 1"),
        (lambda: HalfLife([1000, 0]), "each a whole number, 1 or more"),
        (lambda: HalfLife([5, 5]), "has a duplicate"),
        (lambda: Power([0.05, 0.05]), "has a duplicate"),
        (lambda: Power([0.0]), "each a number above 0"),
        (lambda: Power([0.3]), "sigma_rel=0.3 is not between"),
    ],
)
def test_impossible_profiles_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
