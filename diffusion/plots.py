"""Curves as pictures: `python -m diffusion.plots [FILE]` draws every schedule of conf/schedule into one PNG."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from torch import Tensor

from diffusion import build, images
from diffusion.config import conf_folder
from diffusion.files import atomic
from diffusion.schedule import Schedule


def draw_schedules(schedules: Mapping[str, Schedule]) -> Figure:
    """alpha_bar_t and log-SNR against t / T, a line for each named schedule."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, schedule in schedules.items():
        t = torch.linspace(0, schedule.T, 501, dtype=torch.float64)
        left.plot(t / schedule.T, schedule.log_alpha_bar(t).exp(), label=name)
        right.plot(t[1:] / schedule.T, schedule.log_snr(t[1:]))
    left.set(xlabel="t / T", ylabel=r"$\bar\alpha_t$", title="what is left of the image")
    right.set(xlabel="t / T", ylabel="log SNR", title="log signal-to-noise ratio")
    left.legend()
    return figure


def draw_table(rows: Mapping[str, Sequence[tuple[Tensor | None, str]]], columns: Sequence[str]) -> Figure:
    """Pictures, uint8 (C, H, W) or None, each with a line of text under it, in named rows and columns."""
    figure = Figure(figsize=(1.35 * len(columns) + 0.9, 1.5 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, (name, cells) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(name)
        for axis, (picture, text) in zip(row, cells, strict=True):
            axis.set(xticks=[], yticks=[], xlabel=text, frame_on=False)
            if picture is not None:
                axis.imshow(images.to_pil(picture), cmap="gray", vmin=0, vmax=255)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize="medium")
    return figure


def write_figure(path: Path | str, figure: Figure) -> Path:
    """Writes a figure as a PNG, whole or not at all; returns the path."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return Path(path)


def main() -> None:
    files = sorted((conf_folder() / "schedule").glob("*.yaml"))
    schedules = {file.stem: build.schedule(OmegaConf.to_container(OmegaConf.load(file))) for file in files}
    print(write_figure(sys.argv[1] if len(sys.argv) > 1 else "schedules.png", draw_schedules(schedules)))


if __name__ == "__main__":
    main()
