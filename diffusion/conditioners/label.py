"""The class of an image, one of a few named classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffusion.conditioners import class_names
from diffusion.conditioners.base import EMBEDDING, Conditioner, Opened
from diffusion.config.value_types import Fraction, checked, whole_or_none
from diffusion.ground.errors import UserError


@checked
@dataclass(frozen=True)
class Label(Conditioner):
    """classes: their names; a row is an index into them, int64."""

    yields: ClassVar[str] = EMBEDDING
    classes: Sequence[str] = ()
    drop: Fraction = 0.1

    def module(self, width: int, channels: int) -> "LabelEmbedding":
        return LabelEmbedding(len(self.classes), width)

    @classmethod
    def settle(cls, name: str, data: Any) -> dict[str, Any]:
        if not data.classes:
            raise UserError(
                f"conditioning=label: {data.name} has no classes; image_folder takes them from the names of its folders"
            )
        return {"classes": list(data.classes)}

    def means_the_same(self, other: Conditioner) -> bool:
        return isinstance(other, Label) and [*other.classes] == [*self.classes]

    def read(self, key: str, text: str) -> Tensor | None:
        asked = class_names.read(key, text, self.classes)
        return None if asked is None else torch.tensor(asked)

    def rows(self, name: str, value: Any, n: int) -> Tensor:
        """value: a class for all images, or one per image, by index into `classes` or by name."""
        given = value.tolist() if hasattr(value, "tolist") else value
        each = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given] * n
        if len(each) != n:
            raise UserError(f"{name} has {len(each)} classes for {n} images: give one for all, or one for each")
        return torch.tensor([self._number(name, one) for one in each], dtype=torch.int64)

    def examples(self, n: int) -> Tensor:
        return torch.arange(n) % len(self.classes)

    def titles(self, rows: Tensor) -> list[str]:
        return [self.classes[int(row)] for row in rows]

    def _number(self, name: str, one: Any) -> int:
        if isinstance(one, str) and one in self.classes:
            return self.classes.index(one)
        number = whole_or_none(one)
        if number is not None and 0 <= number < len(self.classes):
            return number
        known = class_names.numbered(self.classes)
        raise UserError(f"{name}={one!r}: no such class; choose among {known}; {name}=None draws without a class")


class LabelEmbedding(Opened, nn.Embedding):
    """rows: int64 (B,) -> (B, width). "No label" is the last row of the table."""

    def __init__(self, classes: int, width: int):
        super().__init__(classes + 1, width)

    def forward(self, rows: Tensor, absent: Tensor | None) -> Tensor:
        if absent is not None:
            rows = torch.where(absent, self.num_embeddings - 1, rows)
        return nn.Embedding.forward(self, rows)

    def blank(self, x: Tensor) -> Tensor:
        return torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
