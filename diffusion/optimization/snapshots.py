"""Snapshots of a run's averages, in files, from which an average of any width is reconstructed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion.config import upgrades
from diffusion.ground import archive
from diffusion.ground.errors import UserError, reading
from diffusion.optimization.averages import coefficients, widths

FOLDER = "averages"  # beside the checkpoints
_SNAPSHOT = "a readable snapshot; remove it to use the others without it"
_TOLERANCE = 0.1  # maximum error of a reconstruction, relative to the profile's norm


def file(folder: Path, step: int) -> Path:
    """The file of the snapshot of a step: see `contents`."""
    return folder / f"{step:09d}.pt"


def contents(step: int, averages: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """The contents of a snapshot file: format, step, and float32 tensors by average and parameter."""
    return {upgrades.KEY: upgrades.FORMAT, "step": step, "averages": averages}


def due(step: int, least: int) -> bool:
    """Whether the snapshot of this step is kept. At least `least` and fewer than twice as many are kept, evenly spread
    over a run of unknown length: their distance is 1, and doubles whenever there are too many."""
    return step % _distance(step, least) == 0


def thin(folder: Path, step: int, least: int) -> None:
    """Removes the snapshots that are no longer kept at `step`, and those of later steps, which a run resumed from an
    earlier checkpoint takes again."""
    for taken, path in _files(folder).items():
        if taken > step or taken % _distance(step, least):
            path.unlink(missing_ok=True)


def reconstruct(
    folder: Path, step: int, averages: Mapping[str, Mapping[str, Tensor]], sigma_rel: float
) -> dict[str, Tensor]:
    """The parameters that an average of width sigma_rel would have had at `step` (Karras et al. 2024, Algorithm 3).

    averages: those of that step, by name and parameter; earlier ones are read from `folder`.
    Returns: float32, summed in float64. Raises UserError if the profile's error exceeds 10%.
    """
    stored = widths(averages)
    if not stored:
        raise UserError(f"weights={sigma_rel}: a width needs a run trained with ema=power; {_listed(averages)}")
    earlier = {taken: path for taken, path in _files(folder).items() if taken < step}
    shares = _shares(folder, [*earlier, step], [*stored.values()], sigma_rel)
    total = {key: torch.zeros_like(tensor, dtype=torch.float64) for key, tensor in averages[min(stored)].items()}
    for path, row in zip([*earlier.values(), None], shares, strict=True):
        source = _read(path, averages) if path else averages
        for name, share in zip(stored, row, strict=True):
            for key, tensor in total.items():
                tensor.add_(source[name][key], alpha=share)
    return {key: tensor.float() for key, tensor in total.items()}


def earlier(contents: Mapping[str, Any], folder: Path, step: int) -> dict[str, Any]:
    """The contents of a checkpoint with its averages at an earlier step. folder: of its snapshots. Raises UserError if
    there is no snapshot of that step."""
    found, averages = _files(folder), contents.get("averages", {})
    if step not in found or not averages:
        kept = ", ".join(map(str, found)) or "none (they are kept by ema=power)"
        raise UserError(f"step={step}: no such snapshot in {folder}; there are {kept}")
    then = _read(found[step], averages)
    first = next(iter(then.values()))
    return {**contents, "averages": then, "ema_state_dict": {**contents["state_dict"], **first}, "global_step": step}


def _shares(folder: Path, steps: list[int], stored: list[float], sigma_rel: float) -> list[list[float]]:
    """The coefficients of the stored widths (columns) after each of `steps` (rows) in the average of sigma_rel."""
    sources = [step for step in steps for _ in stored], stored * len(steps)
    shares, missed = coefficients(*sources, steps[-1], sigma_rel)
    if missed > _TOLERANCE:
        tried = {*stored, *(np.arange(1, 58) / 200)}
        possible = [width for width in tried if coefficients(*sources, steps[-1], width)[1] <= _TOLERANCE]
        raise UserError(
            f"weights={sigma_rel} would have an error of {missed:.0%}: {len(steps) - 1} snapshots before step "
            f"{steps[-1]} in {folder} give widths from {min(possible)} to {max(possible)}"
        )
    return shares.reshape(len(steps), len(stored)).tolist()


def _distance(step: int, least: int) -> int:
    return 1 << max((step // least).bit_length() - 1, 0)


def _files(folder: Path) -> dict[int, Path]:
    return {int(path.stem): path for path in sorted(folder.glob("*.pt")) if path.stem.isdigit()}


def _listed(averages: Mapping[str, Mapping[str, Tensor]]) -> str:
    return f"there are {', '.join(averages)}" if averages else "it has no averages"


def _read(path: Path, like: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    with reading(path, _SNAPSHOT):
        averages = upgrades.snapshot(archive.read(path, _SNAPSHOT), path)["averages"]
    if {name: set(average) for name, average in averages.items()} != {name: set(like[name]) for name in like}:
        raise UserError(f"{path}: holds the averages of another run")
    return averages
