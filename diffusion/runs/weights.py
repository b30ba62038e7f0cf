"""The choice among the weights in a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion.ground.errors import UserError
from diffusion.optimization import snapshots


@dataclass(frozen=True)
class Weights:
    """The average `name`; an average of `width` sigma_rel, reconstructed from snapshots (ema=power); or the raw weights
    of the optimiser. The default is the first average."""

    name: str | None = None
    width: float | None = None
    raw: bool = False

    @classmethod
    def of(cls, value: str | float) -> "Weights":
        """From the value of `weights=`: ema, raw, the name of an average, or a width."""
        if not isinstance(value, str):
            return cls(width=value)
        return cls(raw=True) if value == "raw" else cls(name=None if value == "ema" else value)

    def in_checkpoint(self, contents: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
        """The state dict of these weights. contents: of the checkpoint `path`, whose folder has the snapshots. Raises
        UserError where it has no such weights."""
        raw, averages = contents["state_dict"], contents.get("averages", {})
        if self.raw:
            return raw
        if self.width is not None:
            folder, step = path.parent / snapshots.FOLDER, contents["global_step"]
            return {**raw, **snapshots.reconstruct(folder, step, averages, self.width)}
        if self.name in averages:
            return {**raw, **averages[self.name]}
        if "ema_state_dict" not in contents:
            raise UserError(f"{path}: trained without EMA (ema.decay=0); use weights=raw")
        if self.name is not None:
            raise UserError(f"weights={self.name}: {path} has {', '.join(['ema', 'raw', *averages])}")
        return contents["ema_state_dict"]
