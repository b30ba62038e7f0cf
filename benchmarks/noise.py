"""What noise as a function of (seed, purpose, index) costs: drawing t and eps of a batch against a whole step.

python benchmarks/noise.py [experiment=digits ...]       # any words of train.py
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from omegaconf import OmegaConf

from diffusion import build, random
from diffusion.config import compose
from diffusion.lit import SIMPLE


def median_seconds(action: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    config = OmegaConf.to_container(compose("train", sys.argv[1:] or ["experiment=digits"]), resolve=True)
    model = build.model(config)
    batch_size, T = config["dataset"]["batch_size"], model.denoiser.schedule.T
    index = torch.arange(batch_size)
    optimizer, _ = model.optimizer.build(model.parameters())
    x_0, eps = torch.randn(2, batch_size, *model.shape)
    t = torch.randint(1, T + 1, (batch_size,)).float()

    def draw() -> None:
        model.timesteps.draw(0, index, model.denoiser.schedule)
        random.normal(0, "train/eps", index, model.shape)

    def step() -> None:
        optimizer.zero_grad()
        SIMPLE(model.denoiser, x_0, t, eps).mean().backward()
        optimizer.step()

    step()
    ours, plain, whole = (
        median_seconds(draw, 200),
        median_seconds(lambda: torch.randn(batch_size, *model.shape), 200),
        median_seconds(step, 20),
    )
    print(f"t and eps   {1e3 * ours:8.2f} ms\ntorch.randn {1e3 * plain:8.2f} ms\none step    {1e3 * whole:8.2f} ms")
    print(f"share of a step {ours / (ours + whole):.2%}")


if __name__ == "__main__":
    main()
