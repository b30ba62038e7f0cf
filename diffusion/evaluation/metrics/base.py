"""What a metric is: a number for a trained model, and an account of how it came about."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from diffusion.data.base import Data
from diffusion.evaluation.comparison import Comparison
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.sampling.section import Sampling

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Score:
    """A metric's answer.

    value: the number itself. details: what JSON can hold of its parts and its error. protocol: all that the number
    depends on besides the weights and the data; two values can be compared where it is equal. summary: the lines to
    print. figure: the picture that goes with it, if any.
    files: name -> text of files to write beside the results.
    """

    value: float
    details: Mapping[str, Any]
    protocol: Mapping[str, Any]
    summary: str
    figure: "Figure | None" = None
    files: Mapping[str, str] = field(default_factory=dict)


class Metric(ABC):
    """Hyperparameters of a measurement: of a model (`ModelMetric`) or of images (`ImageMetric`). A file in this folder
    and a yaml in conf/metric make a new one."""

    name: ClassVar[str]  # of its rows and pictures


class ModelMetric(Metric):
    """A measurement of a trained model. It may draw samples itself."""

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


class ImageMetric(Metric):
    """A measurement of images, whatever drew them, beside those of a dataset."""

    @abstractmethod
    def check(self, n: int, comparison: Comparison) -> None:
        """Raises UserError where n images cannot be measured so, before they are drawn; warns of what may mislead."""

    @abstractmethod
    def __call__(self, comparison: Comparison) -> Score:
        """Measures the images of a comparison. Raises UserError as `check` does."""
