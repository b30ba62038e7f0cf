"""Quality against time, ours and peers by their own code: `make records`.

    python benchmarks/records.py [minutes=15] [n=1000] [cores=0,1] [path=data] [NAME ...]      # no NAME: all

Each program trains on MNIST on one core of its own for the same minutes, and draws n images at each of four times; the
drawing does not count. `evaluate.py` measures all images by the same rule: Frechet distance to the training images,
features of the classifier. A record is a line of docs/measurements/records.jsonl; one that is there is not made again.
The table and the figure are docs/records.md and docs/records.png.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from pinned import MEASUREMENTS, SAMPLERS, command, distance, keep, on_cores, options, rows
from torch import Tensor
from torch.nn import functional as F

from diffusion.ground import images as pixels
from diffusion.ground.bar import Bar
from diffusion.runs import build
from diffusion.runs.groups import choice

DOCS = MEASUREMENTS.parent
RECORDS = MEASUREMENTS / "records.jsonl"
RUNS = Path("runs/records")
TIMES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the minutes: when images are drawn
OUR_RECIPE = "experiment=mnist_cpu"

Train = Iterator[int]  # images seen so far, after each step
Draw = Callable[[int], Tensor]  # n -> images in [-1, 1], (n, 1, H, W)


def diffusers(images: Tensor) -> tuple[Train, Draw]:
    """Network and training of Hugging Face's course on diffusion models for MNIST, sampled by DDIM in 20 steps."""
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    network = UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )
    noise_scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def train() -> Train:
        for seen, x_0 in _batches(images, 128):
            eps, t = torch.randn_like(x_0), torch.randint(0, 1000, (len(x_0),))
            loss = F.mse_loss(network(noise_scheduler.add_noise(x_0, eps, t), t).sample, eps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield seen

    @torch.no_grad()
    def draw(n: int) -> Tensor:
        scheduler = DDIMScheduler.from_config(noise_scheduler.config)
        scheduler.set_timesteps(20)
        x = torch.randn(n, 1, 28, 28)
        for t in scheduler.timesteps:
            x = torch.cat([scheduler.step(network(few, t).sample, t, few).prev_sample for few in x.split(64)])
        return x

    return train(), draw


def lucidrains(images: Tensor) -> tuple[Train, Draw]:
    """The README's example at dim=32, with the rate and the average of its Trainer, on images padded to 32x32; sampled
    by its DDIM in 20 steps."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    network = Unet(dim=32, dim_mults=(1, 2, 4, 8), channels=1)
    model = GaussianDiffusion(network, image_size=32, timesteps=1000, sampling_timesteps=20)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.99))
    average = EMA(model, beta=0.995, update_every=10)

    def train() -> Train:
        for seen, x_0 in _batches(F.pad(images, (2, 2, 2, 2), value=-1.0), 16):
            loss = model(x_0 / 2 + 0.5)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update()
            yield seen

    @torch.no_grad()
    def draw(n: int) -> Tensor:
        parts = [average.ema_model.sample(batch_size=len(few)) for few in torch.arange(n).split(64)]
        return torch.cat(parts)[..., 2:-2, 2:-2] * 2 - 1

    return train(), draw


PEERS = {"diffusers": diffusers, "lucidrains": lucidrains}


def _batches(images: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    seen = 0
    while True:
        for batch in torch.randperm(len(images)).split(size):
            seen += len(batch)
            yield seen, images[batch]


def peer(name: str, minutes: float, n: int, path: str) -> None:
    """Trains a peer in this process and writes its images at each time, RUNS/<name>_<part>.npz."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = build.instantiate(choice("dataset", "mnist") | {"path": path})
    data.prepare_data()
    images = pixels.from_uint8(torch.as_tensor(data.split("train")[0][:]))
    train, draw = PEERS[name](images)
    seconds, seen = 0.0, 0
    with Bar(total=round(60 * minutes), desc=name, unit=" s") as bar:
        for part, share in enumerate(TIMES):
            while seconds < 60 * minutes * share:
                start = time.perf_counter()
                seen = next(train)
                seconds += time.perf_counter() - start
                bar.update(round(seconds) - bar.n)
            _write(RUNS / f"{name}_{part}.npz", draw(n), seconds, seen)


def _write(path: Path, x_0: Tensor, seconds: float, seen: int) -> None:
    drawn = pixels.to_uint8(x_0).permute(0, 2, 3, 1)
    np.savez_compressed(path, arr_0=drawn.numpy(), seconds=seconds, seen=seen)


def main() -> None:
    given, names = options(sys.argv[1:])
    minutes, n, path = float(given.get("minutes", 15)), int(given.get("n", 1000)), given.get("path", "data")
    RUNS.mkdir(parents=True, exist_ok=True)
    if name := given.get("peer"):
        peer(name, minutes, n, path)
        return
    jobs = [partial(_record, name, minutes, n, path) for name in names or ["ours", *PEERS]]
    on_cores(given.get("cores", "0,1"), jobs)
    print(report())


def _record(name: str, minutes: float, n: int, path: str, core: str) -> None:
    """Trains a program and measures its images, unless that was done before."""
    key = {"name": name, "minutes": minutes, "n": n}
    if any(key.items() <= row.items() for row in rows(RECORDS)):
        return
    measured = _ours(minutes, n, path, core) if name == "ours" else _peer(name, minutes, n, path, core)
    for row in [*measured]:
        keep(RECORDS, key | row)


def _ours(minutes: float, n: int, path: str, core: str) -> Iterator[dict[str, Any]]:
    """One training for each of the times, since a learning rate falls to the end of its run."""
    for share in TIMES:
        run = RUNS / f"ours_{share:g}"
        limits = [f"trainer.max_minutes={minutes * share}", "trainer.max_steps=null", "callbacks=none", "logger=none"]
        command(core, "train.py", OUR_RECIPE, f"dataset.path={path}", *limits, f"run.dir={run}", "resume=auto")
        for name, sampler in SAMPLERS.items():
            drawn = [f"ckpt={run}", f"dataset.path={path}", *sampler.split(), f"n={n}"]
            row = distance(core, run / f"evaluation_{name}", *drawn)
            seen = row["model"]["step"] * OmegaConf.load(run / "config.yaml").dataset.batch_size
            times = {"seconds": 60 * minutes * share, "seen": seen}
            yield {"program": f"ours, {name}", **times, "distance": row["value"]}


def _peer(name: str, minutes: float, n: int, path: str, core: str) -> Iterator[dict[str, Any]]:
    command(core, "benchmarks/records.py", f"peer={name}", f"minutes={minutes}", f"n={n}", f"path={path}")
    for part in range(len(TIMES)):
        file = RUNS / f"{name}_{part}.npz"
        row = distance(core, RUNS / f"{name}_{part}", f"images={file}", "dataset=mnist", f"dataset.path={path}")
        with np.load(file) as found:
            times = {"seconds": float(found["seconds"]), "seen": int(found["seen"])}
        yield {"program": name, **times, "distance": row["value"]}


def report() -> Path:
    """Writes docs/records.md and its figure from all records."""
    records = rows(RECORDS)
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    lines = ["# Records", "", "`make records`: quality against time on MNIST, each program on one core.", ""]
    lines += ["| program | seconds | images seen | images/s | distance |", "| --- | --- | --- | --- | --- |"]
    for program in dict.fromkeys(row["program"] for row in records):
        own = sorted((row for row in records if row["program"] == program), key=lambda row: row["seconds"])
        axis.plot([row["seconds"] for row in own], [row["distance"] for row in own], "o-", label=program)
        for row in own:
            rate = row["seen"] / row["seconds"]
            lines.append(f"| {program} | {row['seconds']:.0f} | {row['seen']:,} | {rate:.0f} | {row['distance']:.2f} |")
    axis.set(xscale="log", yscale="log", xlabel="seconds of training on one core", ylabel="Frechet distance")
    axis.legend()
    figure.savefig(DOCS / "records.png", dpi=110)
    lines += ["", "![quality against time](records.png)", ""]
    (DOCS / "records.md").write_text("\n".join(lines))
    return DOCS / "records.md"


if __name__ == "__main__":
    main()
