"""What a metric is: a number for a trained model, and an account of how it came about."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from diffusion.data.base import Data
from diffusion.lit.module import LitDiffusion
from diffusion.sampling.section import Sampling

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Score:
    """A metric's answer.

    value: the number itself. details: what JSON can hold of its parts and its error. protocol: all that the number
    depends on besides the weights and the data; two values can be compared where it is equal. summary: the lines to
    print. figure: the picture that goes with it.
    """

    value: float
    details: Mapping[str, Any]
    protocol: Mapping[str, Any]
    summary: str
    figure: "Figure"


class Metric(ABC):
    """Hyperparameters of a measurement; a file in this folder and a yaml in conf/metric make a new one."""

    name: ClassVar[str]  # of its rows and pictures
    samples: ClassVar[int] = 0  # that it draws where `n` is null; 0: it draws none, and is called without `sampling`

    @abstractmethod
    def check(self, model: LitDiffusion, data: Data) -> None:
        """Raises UserError for what cannot be measured, and warns of what may not be meant, before any work."""

    @abstractmethod
    def __call__(
        self, model: LitDiffusion, data: Data, *, seed: int, batch_size: int, sampling: Sampling | None = None
    ) -> Score:
        """Measures model, which is in eval mode, on the device it is on. data: the set it was trained on. sampling: how
        to draw `sampling.n` images; the command adds it to the protocol. Raises UserError as `check` does."""
