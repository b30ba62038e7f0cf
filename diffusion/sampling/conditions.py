"""The conditions of the command line, `y=` and `condition.NAME=`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffusion.conditioners.base import Conditioner
from diffusion.conditioners.condition import Condition
from diffusion.ground.errors import UserError
from diffusion.tasks import arguments


@dataclass(frozen=True)
class Conditions:
    """Rows by name, (k, ...) each; successive images use successive rows, cyclically.

    conditioning: of the model. Without rows, sampling is unconditional.
    """

    conditioning: Mapping[str, Conditioner]
    rows: Mapping[str, Tensor]

    @classmethod
    def read(
        cls, y: str | None, texts: Mapping[str, str | None], conditioning: Mapping[str, Conditioner]
    ) -> "Conditions":
        """y, texts: as typed, by name; y is short for the label. Raises UserError for an invalid condition, and for one
        that the model does not have."""
        typed = {f"condition.{name}": (name, text) for name, text in texts.items() if text is not None}
        if y is not None:
            if texts.get("label") is not None:
                raise UserError("y= is short for condition.label=: use one of them")
            typed = {"y": ("label", y), **typed}
        rows = {}
        for key, (name, text) in typed.items():
            if name in conditioning:
                rows[name] = conditioning[name].read(key, text)
            elif text != "null":
                raise UserError(arguments.unknown(name, text, conditioning, key))
        return cls(conditioning, {name: found for name, found in rows.items() if found is not None})

    @classmethod
    def examples(cls, conditioning: Mapping[str, Conditioner], n: int) -> "Conditions":
        """n rows that show the effect of each condition, for those that can make such rows without data."""
        rows = {name: conditioner.examples(n) for name, conditioner in conditioning.items()}
        return cls(conditioning, {name: found for name, found in rows.items() if found is not None})

    @property
    def period(self) -> int:
        """The number of images after which the combinations repeat; 0 without conditions."""
        return math.lcm(*map(len, self.rows.values())) if self.rows else 0

    def condition(self, turn: Tensor) -> Condition | None:
        """The condition of the images with these turns, int64 (n,)."""
        if not self.rows:
            return None
        return Condition(len(turn)).also(**{name: rows[turn % len(rows)] for name, rows in self.rows.items()})

    def title(self, turn: int) -> str:
        """The condition of an image with this turn, as text."""
        return " ".join(self.conditioning[name].titles(rows[[turn % len(rows)]])[0] for name, rows in self.rows.items())

    def settings(self) -> dict[str, Any]:
        """The entries of samples.json."""
        labels = self.rows.get("label")
        titles = None if labels is None else self.conditioning["label"].titles(labels)
        others = {name: rows.tolist() for name, rows in self.rows.items() if name != "label"}
        return {
            "y": None if labels is None else labels.tolist(),
            "classes": titles,
            **({"condition": others} if others else {}),
        }
