"""What the trainer costs: images/s of the whole `train.py` loop against a bare PyTorch loop of the same algorithm.

    python benchmarks/trainer.py [experiment=digits ...]       # any words of train.py

Both train the same module on the same data in the same process, in turn, several times; the ratio is of the medians.
The bare loop has what Algorithm 1 needs and nothing else: a batch by indexing, torch.randn, loss, backward, clipping,
fused AdamW, and the moving average as one foreach call.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from lightning.pytorch import Callback
from omegaconf import OmegaConf

from diffusion import build, images
from diffusion.commands.train import make_trainer
from diffusion.config import compose
from diffusion.lit import SIMPLE
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
    pictures, _ = data.split("train")
    batch_size, T = config["dataset"]["batch_size"], model.denoiser.schedule.T
    optimizer, lr = model.optimizer.build(model.parameters())
    parameters = list(model.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    order = torch.randperm(len(pictures)).repeat(1 + STEPS * batch_size // len(pictures))
    model.train()
    for step in range(STEPS):
        if step == WARM_UP:
            start = time.perf_counter()
        x_0 = images.from_uint8(pictures[order[step * batch_size : (step + 1) * batch_size]])
        t = torch.randint(1, T + 1, (batch_size,)).float()
        loss = SIMPLE(model.denoiser, x_0, t, torch.randn_like(x_0)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config["trainer"]["gradient_clip"])
        optimizer.step()
        lr.step()
        torch._foreach_lerp_(average, [parameter.detach() for parameter in parameters], 0.001)
    return batch_size * (STEPS - WARM_UP) / (time.perf_counter() - start)


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
