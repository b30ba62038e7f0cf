"""The cost of noise as a function of (seed, purpose, index): a training step against sampling t and eps of its batch.

python benchmarks/noise.py [experiment=digits ...]       # any overrides of train.py

The first row compares with torch.randn, which uses one stream for all images. In the second, 33 is 3 percent of a step.
"""

import sys
from collections.abc import Sequence

import torch
from measure import Row, alternate, report, seconds
from omegaconf import OmegaConf

from diffusion.ground import random
from diffusion.lit.lightning_module import SIMPLE
from diffusion.process import Noised
from diffusion.runs import build
from diffusion.runs.compose import compose


def rows(overrides: Sequence[str] = ("experiment=digits",)) -> list[Row]:
    config = OmegaConf.to_container(compose("train", overrides), resolve=True)
    model = build.trainable(config)
    batch_size, T = config["dataset"]["batch_size"], model.denoiser.schedule.T
    index = torch.arange(batch_size)
    optimizer, _ = model.optimizer.build(model.parameters())
    x_0, eps = torch.randn(2, batch_size, *model.shape)
    t = torch.randint(1, T + 1, (batch_size,)).float()

    def draw() -> float:
        def once():
            model.timesteps.draw(0, index, model.denoiser.schedule)
            random.normal(0, "train/eps", index, model.shape)

        return 1e3 * min(seconds(once) for _ in range(20))

    def step() -> float:
        def once():
            optimizer.zero_grad()
            SIMPLE(model.denoiser, Noised.of(model.denoiser.schedule, x_0, t, eps)).mean().backward()
            optimizer.step()

        return 1e3 * seconds(once)

    def plain() -> float:
        return 1e3 * min(seconds(lambda: torch.randn(batch_size, *model.shape)) for _ in range(20))

    step()
    return [
        alternate("t and eps / torch.randn", draw, plain, "ms", rounds=10, less=True),
        alternate("a step / its t and eps", draw, step, "ms", rounds=10, less=True),
    ]


if __name__ == "__main__":
    report(rows(sys.argv[1:] or ["experiment=digits"]))
