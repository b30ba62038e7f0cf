"""Which of the weights in a checkpoint are meant, and where they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion.ground.errors import UserError
from diffusion.optimization import snapshots


@dataclass(frozen=True)
class Weights:
    """Those of the average `name`; those of an average of width sigma_rel, reconstructed from snapshots (ema=power); or
    the raw ones, which the optimiser left. Where none of these is said, those of the first average."""

    name: str | None = None
    width: float | None = None
    raw: bool = False

    @classmethod
    def of(cls, word: str | float) -> "Weights":
        """What `weights=` is told: ema, raw, the name of an average, or a width."""
        if not isinstance(word, str):
            return cls(width=word)
        return cls(raw=True) if word == "raw" else cls(name=None if word == "ema" else word)

    def in_checkpoint(self, contents: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
        """The state dict of these weights. contents: of the checkpoint `path`, beside which its snapshots lie. Raises
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
