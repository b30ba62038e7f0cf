"""Images drawn in batches, and the states that are kept of them."""

import pytest
import torch

from diffusion import schedule
from diffusion.ground.random import Streams
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM
from diffusion.tasks.generate import generate
from tests.helpers.exact import GaussianDenoiser
from tests.helpers.samplers import draw


@pytest.mark.parametrize(
    "sampler", [DDPM(steps=20), DDIM(steps=20), DDIM(steps=20, eta=0.7), DDPM(steps=20, noise="brownian")]
)
def test_an_image_does_not_depend_on_its_batch(sampler):
    denoise, index = GaussianDenoiser(schedule.linear()), torch.arange(7)
    batches = [
        torch.cat([states[-1] for _, states in generate(denoise, sampler, (1, 4, 4), index, 5, batch_size=size)])
        for size in (1, 3, 7)
    ]
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])
    _, alone = next(generate(denoise, sampler, (1, 4, 4), torch.tensor([6]), 5))
    assert torch.equal(alone[-1][0], batches[0][6])


def test_kept_states_end_with_the_result():
    denoise = GaussianDenoiser(schedule.linear())
    everything = draw(DDPM(steps=10), denoise, n=2, keep=range(11))
    assert len(everything) == 11
    assert torch.equal(everything[0], Streams(0, "sample", torch.arange(2), (1, 16, 16)).normal())
    assert torch.equal(draw(DDPM(steps=10), denoise, n=2, keep=[8, 9, 10]), everything[-3:])
    assert torch.equal(draw(DDPM(steps=10), denoise, n=2, keep=[2, 6, 10]), everything[[2, 6, 10]])
