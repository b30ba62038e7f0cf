"""What each sampler costs: seconds per image, and the share of them that is spent outside the network.

python benchmarks/samplers.py [network=unet_small ...]       # any words of train.py

One batch of images with a network that has not learnt anything: the time is that of a trained one. Every call of the
network is timed; all the rest, noise, schedule, clipping and the solver's own sums, is outside.
"""

import sys
import time

import torch
from omegaconf import OmegaConf

from diffusion import build
from diffusion.config import choice, compose, groups

BATCH, STEPS = 64, 20


class Timed(torch.nn.Module):
    """A network that counts its calls and the seconds they take."""

    def __init__(self, network):
        super().__init__()
        self.network, self.seconds, self.calls = network, 0.0, 0

    def forward(self, *args):
        start = time.perf_counter()
        output = self.network(*args)
        self.seconds += time.perf_counter() - start
        self.calls += 1
        return output


def main() -> None:
    config = OmegaConf.to_container(compose("train", sys.argv[1:] or ["dataset=mnist"]), resolve=True)
    model = build.model(config)
    network = model.denoiser.network
    model.sample(BATCH, sampler=build.instantiate(choice("sampler", "ddim") | {"steps": 2}), progress=False)
    print(f"{BATCH} images, {STEPS} steps\n{'sampler':<16}{'nfe':>5}{'s/image':>10}{'outside the network':>22}")
    for name in groups("train")["sampler"].choices:
        sampler = build.instantiate(choice("sampler", name) | {"steps": STEPS})
        model.denoiser.network = Timed(network)
        start = time.perf_counter()
        model.sample(BATCH, sampler=sampler, progress=False)
        seconds = time.perf_counter() - start
        timed = model.denoiser.network
        print(f"{name:<16}{timed.calls:>5}{seconds / BATCH:>10.4f}{1 - timed.seconds / seconds:>21.1%}")


if __name__ == "__main__":
    main()
