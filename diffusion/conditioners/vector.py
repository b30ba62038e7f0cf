"""A vector of real numbers per image, such as an angle or a measurement."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.conditioners.base import EMBEDDING, Conditioner, Opened, training_rows
from diffusion.config.value_types import Fraction, NonNegative, checked
from diffusion.ground.errors import UserError


@checked
@dataclass(frozen=True)
class Vector(Conditioner):
    """A row is float32 (d,), in the units of the data. mean, std, low, high: of each of the d columns over the training
    split; the network input is (row - mean) / std."""

    yields: ClassVar[str] = EMBEDDING
    mean: Sequence[float] = ()
    std: Sequence[NonNegative] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    drop: Fraction = 0.1

    def module(self, width: int, channels: int) -> "VectorEmbedding":
        return VectorEmbedding(self.mean, self.std, width)

    @classmethod
    def settle(cls, name: str, data: Any) -> dict[str, Any]:
        rows = training_rows(name, data).double()
        rows = rows.reshape(len(rows), -1)
        std = rows.std(dim=0, correction=0)
        return {
            "mean": rows.mean(dim=0).tolist(),
            "std": torch.where(std > 0, std, 1.0).tolist(),  # a constant column has no information
            "low": rows.amin(dim=0).tolist(),
            "high": rows.amax(dim=0).tolist(),
        }

    def means_the_same(self, other: Conditioner) -> bool:
        return isinstance(other, Vector) and len(other.mean) == len(self.mean)

    def read(self, key: str, text: str) -> Tensor | None:
        """A number, a list of d numbers, or a list of such lists, one per row."""
        try:
            return None if text == "null" else self._shaped(torch.tensor(json.loads(text), dtype=torch.float32))
        except (ValueError, TypeError, RuntimeError, OverflowError):
            raise UserError(f"{key}={text}: expected {self._expected()}") from None

    def rows(self, name: str, value: Any, n: int) -> Tensor:
        """value: d numbers for all images, or n times d."""
        try:
            rows = self._shaped(torch.as_tensor(value, dtype=torch.float32))
        except (ValueError, TypeError, RuntimeError, OverflowError):
            raise UserError(f"{name}={value!r}: expected {self._expected()}") from None
        if len(rows) not in (1, n):
            raise UserError(f"{name} has {len(rows)} rows for {n} images: give one for all, or one for each")
        return rows.expand(n, -1)

    def examples(self, n: int) -> Tensor:
        """From the lowest to the highest value of every column."""
        share = torch.linspace(0, 1, n)[:, None]
        return torch.lerp(torch.tensor(self.low), torch.tensor(self.high), share)

    def titles(self, rows: Tensor) -> list[str]:
        return [", ".join(f"{value:.4g}" for value in row) for row in rows.tolist()]

    def _shaped(self, rows: Tensor) -> Tensor:
        d = len(self.mean)
        if rows.ndim == 0 or (rows.ndim == 1 and (d > 1 or len(rows) == 1)):
            rows = rows.reshape(1, -1)
        elif rows.ndim == 1:
            rows = rows[:, None]  # with a single column: one number per row
        if rows.ndim != 2 or rows.shape[1] != d or not len(rows) or not rows.isfinite().all():
            raise ValueError
        return rows

    def _expected(self) -> str:
        d = len(self.mean)
        return (
            f"{d} finite number{'s' * (d > 1)}, such as [{','.join(f'{x:.3g}' for x in self.mean)}], or a list of such"
        )


class VectorEmbedding(Opened):
    """rows: (B, d), or (B,) where d is 1 -> (B, width): standardised, then a small MLP. An absent row
    is a learned vector."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], width: int):
        super().__init__()
        self.mean, self.std = tuple(mean), tuple(std)  # no buffers: they are in the config
        self.linear_1 = nn.Linear(len(self.mean), width)
        self.linear_2 = nn.Linear(width, width)
        self.absent = nn.Parameter(torch.zeros(width))

    def forward(self, rows: Tensor, absent: Tensor | None) -> Tensor:
        mean, std = (torch.tensor(each, dtype=torch.float32, device=rows.device) for each in (self.mean, self.std))
        x = ((rows.float().reshape(-1, len(self.mean)) - mean) / std).to(self.linear_1.weight.dtype)
        embedding = self.linear_2(F.silu(self.linear_1(x)))
        if absent is None:  # none, but DDP needs a gradient of every weight
            absent = torch.zeros(rows.shape[0], dtype=torch.bool, device=rows.device)
        return torch.where(absent[:, None], self.absent, embedding)

    def blank(self, x: Tensor) -> Tensor:
        return torch.zeros(x.shape[0], len(self.mean), device=x.device)
