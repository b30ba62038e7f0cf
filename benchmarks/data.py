"""Speed of the data path against the network: images/s of making training pairs, and of training on them.

python benchmarks/data.py [experiment=mnist_cpu ...]       # any overrides of train.py

The data path is everything before the network: the batch by indexing, t, eps, and uint8 -> [-1, 1].
"""

import itertools
import sys
from collections.abc import Sequence

import torch
from measure import Row, alternate, report, seconds
from omegaconf import OmegaConf

from diffusion.ground import random
from diffusion.process import Noised
from diffusion.runs import build
from diffusion.runs.compose import compose

BATCHES = 200


def rows(overrides: Sequence[str] = ("experiment=mnist_cpu",)) -> list[Row]:
    config = OmegaConf.to_container(compose("train", overrides), resolve=True)
    model = build.trainable(config)
    data = build.instantiate(config["dataset"], seed=0)
    data.prepare_data()
    batches = itertools.chain.from_iterable(itertools.repeat(data.train_dataloader()))
    optimizer, _ = model.optimizer.build(model.parameters())

    def pair() -> tuple[torch.Tensor, ...]:
        batch = next(batches)
        t, _ = model.timesteps.draw(0, batch.index, model.denoiser.schedule)
        return model.space.encode(batch.x), t.float(), random.normal(0, "train/eps", batch.index, model.shape)

    def make() -> float:
        return BATCHES * data.batch_size / seconds(lambda: [pair() for _ in range(BATCHES)])

    def step(x_0: torch.Tensor, t: torch.Tensor, eps: torch.Tensor) -> None:
        optimizer.zero_grad()
        model.objective(model.denoiser, Noised.of(model.denoiser.schedule, x_0, t, eps)).mean().backward()
        optimizer.step()

    def need() -> float:
        made = pair()
        return 10 * data.batch_size / seconds(lambda: [step(*made) for _ in range(10)])

    need()
    return [alternate("data path / the network's need", make, need, "images/s")]


if __name__ == "__main__":
    report(rows(sys.argv[1:] or ["experiment=mnist_cpu"]))
