"""The overhead of each sampler outside the network: noise, schedule, clipping and the solver's arithmetic.

python benchmarks/samplers.py [network=unet_small ...]       # any overrides of train.py

One batch with an untrained network, which takes the same time as a trained one. `ours` is the total sampling time in
seconds, `peer` the part spent in the network: a ratio of 0.97 is 3 percent overhead.
"""

import sys
import time
from collections.abc import Sequence

import torch
from measure import Row, report, seconds
from omegaconf import OmegaConf

from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs import build
from diffusion.runs.compose import compose
from diffusion.runs.groups import choice, groups_of
from diffusion.samplers.base import Sampler

BATCH, STEPS, ROUNDS = 64, 20, 3


class Timed(torch.nn.Module):
    """A network that measures the seconds of its calls."""

    def __init__(self, network):
        super().__init__()
        self.network, self.seconds = network, 0.0

    def forward(self, *args):
        start = time.perf_counter()
        output = self.network(*args)
        self.seconds += time.perf_counter() - start
        return output


def total_and_inside(model: LitDiffusion, sampler: Sampler) -> tuple[float, float]:
    """Seconds of sampling a batch, and those spent in the network."""
    network = model.denoiser.network
    timed = model.denoiser.network = Timed(network)
    total = seconds(lambda: model.sample(BATCH, sampler=sampler, progress=False))
    model.denoiser.network = network
    return total, timed.seconds


def rows(overrides: Sequence[str] = ("dataset=mnist",)) -> list[Row]:
    model = build.model(OmegaConf.to_container(compose("train", overrides), resolve=True))
    model.sample(BATCH, sampler=build.instantiate(choice("sampler", "ddim") | {"steps": 2}), progress=False)
    found = []
    for name in groups_of("train")["sampler"].choices:
        sampler = build.instantiate(choice("sampler", name) | {"steps": STEPS})
        pairs = sorted((total_and_inside(model, sampler) for _ in range(ROUNDS)), key=lambda pair: pair[1] / pair[0])
        ratios = [inside / total for total, inside in pairs]
        middle = ROUNDS // 2
        found.append(Row(f"{name}, {STEPS} steps / its network alone", *pairs[middle], "s", ratios[middle], ratios))
    return found


if __name__ == "__main__":
    report(rows(sys.argv[1:] or ["dataset=mnist"]))
