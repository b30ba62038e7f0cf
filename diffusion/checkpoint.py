"""Checkpoints: written whole or not at all, found by run folder, read without executing anything."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from diffusion import build, snapshots
from diffusion.errors import UserError
from diffusion.files import atomic
from diffusion.lit import LitDiffusion


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint writer, but whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        with atomic(path) as temporary:
            torch.save(checkpoint, temporary)


def find(ckpt: str | Path) -> Path:
    """The checkpoint file that `ckpt` means: a file; a run folder (its last); RUN/last or RUN/best.

    Raises UserError that says what was looked for.
    """
    path = Path(ckpt)
    if path.is_file():
        return path
    folder, name = (path.parent, path.name) if path.name in ("last", "best") else (path, "last")
    found = folder / "checkpoints" / f"{name}.ckpt"
    if found.is_file():
        return found
    if not folder.is_dir():
        raise UserError(f"ckpt={ckpt}: no such file or run folder")
    raise UserError(f"ckpt={ckpt}: no checkpoint {found}; expected a run folder that train.py wrote, or a .ckpt file")


def read(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint of ours: plain tensors and containers on the CPU, nothing unpickled.

    Raises UserError for a file that is damaged or of another program.
    """
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, BadZipFile, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(contents, dict) or not isinstance(contents.get("config"), dict) or "state_dict" not in contents:
        raise UserError(f"{path}: not a checkpoint of this program (no config inside)")
    return contents


def load(ckpt: str | Path, weights: str | float = "ema", device: str | torch.device = "cpu") -> LitDiffusion:
    """The trained model of a run folder or checkpoint, in eval mode.

    weights: `ema` (the first average), `raw`, the name of an average such as `half_life_50000`, or after `ema=power` a
    number: the width, sigma_rel, of an average that is reconstructed from the snapshots beside the checkpoint.
    Raises UserError where there is none, it is damaged, or it holds no such weights.
    """
    path = find(ckpt)
    contents = read(path)
    model = build.model(contents["config"])
    model.load_state_dict(_weights(contents, path, weights))
    return model.to(device).eval()


def _weights(contents: dict[str, Any], path: Path, weights: str | float) -> dict[str, Tensor]:
    raw, averages = contents["state_dict"], contents.get("averages", {})
    if weights == "raw":
        return raw
    if not isinstance(weights, str):
        folder, step = path.parent / snapshots.FOLDER, contents["global_step"]
        return {**raw, **snapshots.reconstruct(folder, step, averages, weights)}
    if weights in averages:
        return {**raw, **averages[weights]}
    if "ema_state_dict" not in contents:
        raise UserError(f"{path}: trained without EMA (ema.decay=0); use weights=raw")
    if weights != "ema":
        raise UserError(f"weights={weights}: {path} has {', '.join(['ema', 'raw', *averages])}")
    return contents["ema_state_dict"]
