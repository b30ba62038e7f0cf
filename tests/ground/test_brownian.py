import math
from itertools import pairwise

import torch

from diffusion.ground.brownian import BrownianPath

INDEX = torch.arange(400)
SNR = [0.0, 1e-12, 1e-3, 0.5, 0.501, 3.0, 1e4]


def _path(seed=0, index=INDEX):
    return BrownianPath(seed, "sample", index, (1, 8, 8))


def test_increments_are_independent_standard_normals():
    path = _path()
    steps = [path.increment(low, high).flatten().double() for low, high in pairwise(SNR)]
    n = steps[0].numel()
    moments = torch.stack(steps)
    assert (moments.mean(1).abs() < 4 / n**0.5).all()
    covariance = torch.cov(moments) - torch.eye(len(steps))
    assert (covariance.abs() < 5 * (2 / n) ** 0.5).all()


def test_the_increment_of_one_step_is_the_sum_of_those_that_divide_it():
    parts = [math.sqrt(high - low) * _path().increment(low, high) for low, high in pairwise(SNR)]
    whole = math.sqrt(SNR[-1] - SNR[0]) * _path().increment(SNR[0], SNR[-1])
    torch.testing.assert_close(sum(parts), whole, rtol=1e-5, atol=1e-3)


def test_a_value_does_not_depend_on_what_was_asked_before():
    path = _path()
    for low, high in [(3.0, 1e4), (0.1, 0.2), (0.0, 1e-3)]:
        path.increment(low, high)
    assert torch.equal(path.increment(0.5, 3.0), _path().increment(0.5, 3.0))


def test_a_value_depends_on_the_image_alone_in_any_batch():
    assert torch.equal(_path(index=INDEX[7:9]).increment(0.1, 0.7), _path().increment(0.1, 0.7)[7:9])
    assert not torch.equal(_path(seed=1).increment(0.1, 0.7), _path().increment(0.1, 0.7))


def test_another_pass_has_another_path():
    first, second = _path().increment(0.1, 0.7), _path().again().increment(0.1, 0.7)
    assert torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].abs() < 4 / first.numel() ** 0.5


def test_the_last_step_to_infinite_snr_is_finite():
    assert torch.isfinite(_path().increment(1e4, math.inf)).all()
    assert (_path().increment(math.exp(25), math.inf) == 0).all()
