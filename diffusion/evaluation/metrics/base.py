"""Base classes of metrics, and the result of a metric."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
    """The result of a metric.

    value: the number. details: its parts and its error, as JSON values. protocol: everything that the number depends on
    besides the weights and the data; two values are comparable if it is equal. summary: the lines to print. figure: the
    figure of the result, if any. files: name -> text of files to write next to the results. table: rows for loggers
    that show tables.
    """

    value: float
    details: Mapping[str, Any]
    protocol: Mapping[str, Any]
    summary: str
    figure: "Figure | None" = None
    files: Mapping[str, str] = field(default_factory=dict)
    table: Sequence[Mapping[str, Any]] = ()


class Metric(ABC):
    """Hyperparameters of a measurement: of a model (`ModelMetric`) or of images (`ImageMetric`). A file in this folder
    and a yaml in conf/metric add a new one."""

    name: ClassVar[str]  # in its rows and file names


class ModelMetric(Metric):
    """A measurement of a trained model. It may draw samples itself."""

    samples: ClassVar[int] = 0  # drawn if `n` is null; 0: it draws none, and is called without `sampling`

    @abstractmethod
    def check(self, model: LitDiffusion, data: Data) -> None:
        """Raises UserError if it cannot be measured, and warns about questionable settings, before any computation."""

    @abstractmethod
    def __call__(
        self, model: LitDiffusion, data: Data, *, seed: int, batch_size: int, sampling: Sampling | None = None
    ) -> Score:
        """Measures model, which is in eval mode, on its device. data: the training dataset. sampling: how to draw
        `sampling.n` images; the command adds it to the protocol. Raises UserError as `check` does."""


class ImageMetric(Metric):
    """A measurement of images from any source, compared with those of a dataset."""

    @abstractmethod
    def check(self, n: int, comparison: Comparison) -> None:
        """Raises UserError if n images cannot be measured, before they are drawn; warns about misleading settings."""

    @abstractmethod
    def __call__(self, comparison: Comparison) -> Score:
        """Measures the images of a comparison. Raises UserError as `check` does."""
