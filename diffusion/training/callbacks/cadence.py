"""When something of a run is due again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from diffusion.config.values import Count, Positive, checked


@checked
@dataclass(frozen=True)
class Cadence:
    """Every so many optimiser steps, minutes or epochs, whichever comes first; None: not by that.

    Steps and epochs are counted from the beginning of the run, so that a resumed one keeps to the same. Minutes have a
    clock, which is kept by whoever asks.
    """

    every_n_steps: Count | None = None
    every_n_minutes: Positive | None = None
    every_n_epochs: Count | None = None

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> "Cadence":
        """That of a section of the config, whatever else it holds."""
        return cls(**{field.name: section[field.name] for field in fields(cls)})

    @property
    def given(self) -> bool:
        """Whether it says anything at all."""
        return any(every is not None for every in (self.every_n_steps, self.every_n_minutes, self.every_n_epochs))

    @property
    def seconds(self) -> float:
        """From one to the next; infinity without minutes."""
        return math.inf if self.every_n_minutes is None else 60 * self.every_n_minutes

    def counts(self, steps: int | None, epochs: int | None) -> bool:
        """Whether it is due after so many steps or epochs; None where none has just ended."""
        pairs = (steps, self.every_n_steps), (epochs, self.every_n_epochs)
        return any(done is not None and every is not None and done % every == 0 for done, every in pairs)
