"""A run folder as a training leaves it, without the training."""

import csv
import io
import json

import numpy as np
import torch
from PIL import Image

from diffusion.config.plain import plain
from diffusion.runs import compose, manifest

WORDS = ["dataset=digits", "network=unet_tiny", "logger=none", "trainer.max_steps=300"]
LOSSES = [0.9, 0.3, 0.2, 0.15, 0.12, 0.11]  # at steps 50, 100, ... 300


def run_folder(folder, *overrides, losses=LOSSES, step=300, skipped=0, size=24, command="train.py seed=0"):
    """Writes manifest.json, metrics.csv, checkpoints/last.ckpt and samples/."""
    folder.mkdir(parents=True)
    given = {word.partition("=")[0]: word for word in [*WORDS, *overrides]}  # the last wins
    config = plain(compose.compose("train", [*given.values()]))
    config.pop("given")
    about = manifest.describe(config, {"name": "digits", "fingerprint": "f0"})
    manifest.write(folder, {**about, "command": command}, step=0)
    write_metrics(folder, losses)
    write_checkpoint(folder, step, skipped)
    for number in range(len(losses)):
        when = f"epoch_{number + 1:04d}_step_{50 * (number + 1):07d}"
        for kind in "", "strip_", "loss_", "x_0_":
            write_picture(folder / "samples" / f"{kind}{when}.png", size, seed=number)
    return folder


def write_metrics(folder, losses):
    rows = [{"epoch": k, "step": 50 * k + 49, "train/loss": loss} for k, loss in enumerate(losses)]
    rows += [{"epoch": k, "step": 50 * k + 49, "val/loss": loss, "val/loss_t1of4": 2} for k, loss in enumerate(losses)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["epoch", "step", "train/loss", "val/loss", "val/loss_t1of4"])
    writer.writeheader()
    writer.writerows(rows)
    (folder / "metrics.csv").write_text(stream.getvalue())


def write_checkpoint(folder, step, skipped):
    val_loop = {"total": {"started": 0, "processed": 0}}
    loop = {
        "epoch_loop.val_loop.batch_progress": val_loop,
        "epoch_loop.batch_progress": {"is_last_batch": True},
        "epoch_progress": {"current": {"processed": 2}},
    }
    callbacks = {"Progress": {"images": 128 * step, "seconds": 64.0}, "GradientGuard": {"skipped": skipped}}
    (folder / "checkpoints").mkdir(exist_ok=True)
    contents = {"global_step": step, "callbacks": callbacks, "loops": {"fit_loop": loop}, "state_dict": {}}
    torch.save(contents, folder / "checkpoints" / "last.ckpt")


def write_picture(path, size, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def write_result(folder, **row):
    (folder / "evaluation").mkdir(exist_ok=True)
    with open(folder / "evaluation" / "results.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
