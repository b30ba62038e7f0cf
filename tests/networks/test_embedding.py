import math

import torch

from diffusion.networks.embedding import sinusoidal


def test_sinusoidal_is_the_formula():
    t, width = torch.tensor([0.0, 1.0, 2.5, 999.0]), 6
    expected = [[f(value * 10_000 ** (-k / 2)) for f in (math.sin, math.cos) for k in range(3)] for value in t.tolist()]
    torch.testing.assert_close(sinusoidal(t, width), torch.tensor(expected), atol=1e-4, rtol=0)


def test_freq_shift_sets_the_slowest_frequency():
    t = torch.tensor([1.0])
    assert math.isclose(sinusoidal(t, 64, freq_shift=1)[0, 31], 1e-4, rel_tol=1e-4)
    assert math.isclose(sinusoidal(t, 64, freq_shift=0)[0, 31], 10_000 ** (-31 / 32), rel_tol=1e-4)
