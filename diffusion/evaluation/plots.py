"""Plots; `python -m diffusion.evaluation.plots [FILE]` draws every schedule of conf/ into one PNG."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from omegaconf import OmegaConf
from torch import Tensor

from diffusion.config import conf_folders
from diffusion.config.plain import load, plain
from diffusion.ground import images
from diffusion.ground.files import atomic
from diffusion.losses.weighting import Simple, Weighting
from diffusion.runs import build
from diffusion.schedule import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from diffusion.evaluation.metrics.samplers import Cell

_BINS = 20  # bins of 0..T
_DEPTH = 1000  # the floor of the loss is shown down to its maximum divided by this
_BAND = torch.tensor([0.1, 0.9], dtype=torch.float64)


def draw_schedules(schedules: Mapping[str, Schedule]) -> "Figure":
    """alpha_bar_t and log-SNR against t / T, a line for each named schedule."""
    figure, axes = _panels(2)
    for name, schedule in schedules.items():
        _draw_schedule(axes, schedule, unit=schedule.T, label=name)
    for axis in axes:
        axis.set_xlabel("t / T")
    axes[0].legend()
    return figure


def draw_training(schedule: Schedule, t: Tensor, weighting: Weighting | None) -> "Figure":
    """The schedule in training: alpha_bar_t and log-SNR against t; and the frequency of each t and the weight of its
    loss, both relative to L_simple with uniform t.

    t: many draws of t, in steps, (n,); weighting: None if the loss has no such weights.
    """
    figure, axes = _panels(3)
    _draw_schedule(axes, schedule, unit=1)
    density = t.histc(_BINS, min=0, max=schedule.T) * _BINS / len(t)
    axes[2].stairs(density, torch.linspace(0, schedule.T, _BINS + 1), baseline=None, label="draws of t")
    if weighting is not None:
        of_eps = Simple()  # weights apply to the error of v; this is the weight of the error of eps
        k = torch.arange(1, schedule.T + 1, dtype=torch.float64)
        axes[2].plot(k, weighting(schedule, k) / of_eps(schedule, k), label="weight")
    axes[2].set(yscale="log", title="weights of t in training", ylabel=r"relative to $L_{simple}$, uniform t")
    low, high = axes[2].get_ylim()
    axes[2].set_ylim(min(low, 0.1), max(high, 10))  # nearly constant curves look flat
    axes[2].legend()
    for axis in axes:
        axis.set_xlabel("t")
    return figure


def draw_losses(t: Tensor, losses: Tensor, T: int, floor: tuple[Tensor, Tensor] | None = None) -> "Figure":
    """The losses of single images against t: the mean and the 10th to 90th percentile in each of 20 parts of 0..T.

    t: in steps, (n,); losses: (n,). floor: the smallest possible mean on the training images, if known: t and
    value, both (m,).
    """
    part = ((t - 1) * _BINS / T).long().clamp(0, _BINS - 1)
    parts = [losses[part == k].double() for k in range(_BINS)]
    middles, parts = zip(*((T * (k + 0.5) / _BINS, each) for k, each in enumerate(parts) if len(each)), strict=True)
    low, high = torch.stack([each.quantile(_BAND) for each in parts], dim=1)
    figure = _figure(6, 3.8)
    axis = figure.subplots()
    axis.fill_between(middles, low, high, alpha=0.25, linewidth=0, label="10% to 90% of the images")
    axis.plot(middles, [each.mean() for each in parts], marker="o", markersize=3, label="mean")
    if floor is not None:
        axis.set_yscale("log")
        bottom = min(axis.get_ylim()[0], floor[1].max().item() / _DEPTH)
        axis.plot(*floor, "--", color="black", linewidth=1, label="floor of the training images")
        axis.set_ylim(bottom=bottom)  # at low noise the floor falls to 0
    axis.set(
        yscale="log", xlim=(0, T), xlabel="t", ylabel=r"$|\epsilon - \epsilon_\theta(x_t, t)|^2$, mean over pixels"
    )
    axis.set_title(f"loss of {len(losses)} images against t")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _panels(n: int) -> "tuple[Figure, list[Axes]]":
    figure = _figure(4.5 * n, 3.4)
    axes = list(figure.subplots(1, n))
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes


def _draw_schedule(axes: "Sequence[Axes]", schedule: Schedule, unit: float, label: str | None = None) -> None:
    """alpha_bar_t and log-SNR into two panels, against t / unit."""
    t = torch.linspace(0, schedule.T, 501, dtype=torch.float64)
    axes[0].plot(t / unit, schedule.log_alpha_bar(t).exp(), label=label)
    axes[1].plot(t[1:] / unit, schedule.log_snr(t[1:]))
    axes[0].set(ylabel=r"$\bar\alpha_t$", title="remaining signal")
    axes[1].set(ylabel="log SNR", title="log signal-to-noise ratio")


def draw_table(
    rows: Mapping[str, Sequence[tuple[Tensor | None, str]]], columns: Sequence[str], lines: Sequence[str] | None = None
) -> "Figure":
    """Images, uint8 (C, H, W) or None, each with a line of text under it, in named rows and columns. lines: names of
    the equally high parts of each image, from the top."""
    shapes = [picture.shape for cells in rows.values() for picture, _ in cells if picture is not None]
    height = max(
        1.35 * min(1, max(height / width for _, height, width in shapes)) + 0.15, 0.17 * len(lines or []) + 0.3
    )
    figure = _figure(1.35 * len(columns) + 0.9, height * len(rows) + 0.3)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, (name, cells) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(name)
        for axis, (picture, text) in zip(row, cells, strict=True):
            axis.set(xticks=[], yticks=[], xlabel=text, frame_on=False)
            if picture is not None:
                axis.imshow(images.to_pil(picture), cmap="gray", vmin=0, vmax=255)
        shown = [(axis, picture.shape[1]) for axis, (picture, _) in zip(row, cells, strict=True) if picture is not None]
        if lines is not None and shown:
            axis, pixels = shown[0]
            positions = [(number + 0.5) * pixels / len(lines) for number in range(len(lines))]
            axis.set_yticks(positions, lines, fontsize="x-small")
            axis.tick_params(length=0)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize="medium")
    return figure


def draw_samplers(lines: "Mapping[str, Sequence[Cell]]", front: "Sequence[Cell]") -> "Figure":
    """Distances of samplers against network evaluations and against seconds, with the Pareto front `front` of the
    latter."""
    figure, axes = _panels(2)
    for name, cells in lines.items():
        for axis, key in zip(axes, ("nfe", "seconds"), strict=True):
            axis.plot([getattr(each, key) for each in cells], [each.distance for each in cells], "o-", label=name)
    axes[1].plot([each.seconds for each in front], [each.distance for each in front], "k--", linewidth=1, label="best")
    for axis, label in zip(axes, ("network evaluations", "seconds"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="Frechet distance")
    axes[0].legend(fontsize="x-small")
    return figure


def draw_terms(by_t: Tensor, prior: float) -> "Figure":
    """The terms of the variational bound against t: by_t, L_{t-1} of t = 1..T in bits per dimension, (T,), nan if
    unknown; prior: L_T."""
    figure = _figure(6, 3.6)
    axis = figure.subplots()
    axis.plot(1, by_t[0], "o", label=r"decoder, $L_0$")
    axis.plot(range(2, len(by_t) + 1), by_t[1:], ".", markersize=3, label=r"$L_{t-1}$")
    axis.set(xlabel="t", ylabel="bits per dimension", xscale="log", yscale="log", title=f"prior $L_T$ = {prior:.2g}")
    axis.legend()
    return figure


def write_figure(path: Path | str, figure: "Figure") -> Path:
    """Writes a figure as a PNG, atomically; returns the path."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return Path(path)


def main() -> None:
    nodes = {name: load(file) for name, file in conf_folders.choices("schedule").items()}
    known = {name: plain(node) for name, node in nodes.items() if not OmegaConf.missing_keys(node)}
    schedules = {name: build.schedule(node) for name, node in known.items()}
    print(write_figure(sys.argv[1] if len(sys.argv) > 1 else "schedules.png", draw_schedules(schedules)))


if __name__ == "__main__":
    main()
