"""What the trainer costs: images/s of the whole `train.py` loop against a bare PyTorch loop of the same algorithm.

    python benchmarks/trainer.py [experiment=digits ...]       # any words of train.py

Both train the same module on the same data in the same process, in turn, several times; the ratio is of the medians.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from lightning.pytorch import Callback
from loop import train
from omegaconf import OmegaConf

from diffusion import build
from diffusion.commands.train import make_trainer
from diffusion.config import compose
from diffusion.quiet import quiet

STEPS, WARM_UP, ROUNDS = 150, 20, 5


class Clock(Callback):
    """Times the steps after the warm-up, validation and saving left out (they have their own line in a run)."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == WARM_UP:
            self.start = time.perf_counter()
        if trainer.global_step == STEPS:
            self.seconds = time.perf_counter() - self.start


def full(config: dict) -> float:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(config, Path(folder))
        trainer.callbacks.insert(0, clock)
        data = build.instantiate(config["dataset"], seed=0)
        trainer.fit(build.model(config), datamodule=data)
    return config["dataset"]["batch_size"] * (STEPS - WARM_UP) / clock.seconds


def bare(config: dict) -> float:
    model = build.model(config)
    data = build.instantiate(config["dataset"], seed=0)
    data.prepare_data()
    for step, _ in enumerate(train(model, data.split("train")[0], config), start=1):
        if step == WARM_UP:
            start = time.perf_counter()
        if step == STEPS:
            return config["dataset"]["batch_size"] * (STEPS - WARM_UP) / (time.perf_counter() - start)


def main() -> None:
    quiet()
    words = sys.argv[1:] or ["experiment=digits"]
    config = OmegaConf.to_container(compose("train", [*words, "preview.n=0"]), resolve=True)
    config["trainer"] |= {"max_steps": STEPS, "max_minutes": None, "val_every_n_epochs": 10**9}
    rates = [(full(config), bare(config)) for _ in range(ROUNDS)]
    trained, looped = (statistics.median(column) for column in zip(*rates, strict=True))
    ratios = sorted(ours / theirs for ours, theirs in rates)
    print(f"train.py loop  {trained:8.1f} images/s\nbare loop      {looped:8.1f} images/s")
    print(f"ratio          {trained / looped:8.3f}  (rounds: {ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
