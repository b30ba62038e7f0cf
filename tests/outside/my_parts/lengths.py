"""A condition: lengths in pixels, of which the network sees the logarithm."""

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffusion.conditioners.base import EMBEDDING, Conditioner, Opened, training_rows
from diffusion.config.value_types import Fraction, Positive, checked
from diffusion.ground.errors import UserError


@checked
@dataclass(frozen=True)
class Lengths(Conditioner):
    """A row is float32 (1,). low, high: the least and the largest in training, filled from the data."""

    yields = EMBEDDING
    low: Positive | None = None
    high: Positive | None = None
    drop: Fraction = 0.1

    def module(self, width: int, channels: int) -> "LengthEmbedding":
        return LengthEmbedding(width)

    @classmethod
    def settle(cls, name: str, data) -> dict[str, float]:
        rows = training_rows(name, data)
        return {"low": rows.min().item(), "high": rows.max().item()}

    def read(self, key: str, text: str) -> Tensor | None:
        with suppress(ValueError):
            rows = None if text == "null" else torch.tensor([[float(each)] for each in text.strip("[]").split(",")])
            if rows is None or (rows > 0).all():
                return rows
        raise UserError(f"{key}={text}: expected a length in pixels, or a list such as [4,8]")

    def examples(self, n: int) -> Tensor:
        return torch.linspace(self.low, self.high, n)[:, None]

    def titles(self, rows: Tensor) -> list[str]:
        return [f"{length:.3g} pixels" for length in rows[:, 0].tolist()]


class LengthEmbedding(Opened):
    """(B, 1) -> (B, width); no row is a vector of its own, learnt."""

    def __init__(self, width: int):
        super().__init__()
        self.known = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.absent = nn.Parameter(torch.zeros(width))

    def forward(self, rows: Tensor, absent: Tensor | None) -> Tensor:
        known = self.known(rows.log())
        return known if absent is None else torch.where(absent[:, None], self.absent, known)

    def blank(self, x: Tensor) -> Tensor:
        return x.new_ones(len(x), 1)
