"""Precision, recall, density and coverage."""

from dataclasses import asdict, dataclass

from diffusion.config.value_types import Count, checked
from diffusion.evaluation import formulas
from diffusion.evaluation.comparison import Comparison
from diffusion.evaluation.metrics.base import ImageMetric, Score
from diffusion.ground.errors import UserError

_MOST = 10_000  # reference images at most: all pairs are compared


@checked
@dataclass(frozen=True)
class PrecisionRecall(ImageMetric):
    """How many images look real (precision, density) and how much of the reference they cover (recall, coverage):
    Kynkaanniemi et al. 2019, Naeem et al. 2020. The value is the coverage. Up to 10,000 reference images are used,
    evenly spaced. k: the neighbour that defines the radius of a ball."""

    k: Count = 5

    name = "prdc"

    def check(self, n: int, comparison: Comparison) -> None:
        if n <= self.k:
            raise UserError(f"metric=prdc needs more than k={self.k} images, not {n}")

    def __call__(self, comparison: Comparison) -> Score:
        reference = comparison.reference_features
        reference = reference[:: -(-len(reference) // _MOST)]
        found = asdict(formulas.prdc(comparison.features, reference, self.k))
        text = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        return Score(found["coverage"], found, {"k": self.k, "reference_n": len(reference)}, text)
