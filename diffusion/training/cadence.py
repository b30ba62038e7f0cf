"""How often a periodic action of a run is due."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from diffusion.config.value_types import Count, Positive, checked


@checked
@dataclass(frozen=True)
class Cadence:
    """Every n optimizer steps, minutes or epochs, whichever comes first; None: not by that unit.

    Steps and epochs are counted from the beginning of the run, so a resumed run keeps the same cadence. The caller
    measures the minutes.
    """

    every_n_steps: Count | None = None
    every_n_minutes: Positive | None = None
    every_n_epochs: Count | None = None

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> "Cadence":
        """From a section of the config; other keys are ignored."""
        return cls(**{field.name: section[field.name] for field in fields(cls)})

    @property
    def given(self) -> bool:
        """Whether any interval is set."""
        return any(every is not None for every in (self.every_n_steps, self.every_n_minutes, self.every_n_epochs))

    @property
    def seconds(self) -> float:
        """The interval in seconds; infinity without every_n_minutes."""
        return math.inf if self.every_n_minutes is None else 60 * self.every_n_minutes

    def counts(self, steps: int | None, epochs: int | None) -> bool:
        """Whether the action is due after this many steps or epochs; None if no step or epoch has just ended."""
        pairs = (steps, self.every_n_steps), (epochs, self.every_n_epochs)
        return any(done is not None and every is not None and done % every == 0 for done, every in pairs)
