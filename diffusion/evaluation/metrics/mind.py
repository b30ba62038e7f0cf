"""Monge Inception Distance."""

from dataclasses import dataclass

from diffusion.config.value_types import Count, checked
from diffusion.evaluation import formulas
from diffusion.evaluation.comparison import Comparison
from diffusion.evaluation.metrics.base import ImageMetric, Score


@checked
@dataclass(frozen=True)
class MongeDistance(ImageMetric):
    """The sliced Wasserstein distance of features (arXiv:2605.06797), informative from 1,000 images on. projections:
    number of random directions; more of them reduce its variance."""

    projections: Count = 1000

    name = "mind"

    def check(self, n: int, comparison: Comparison) -> None:
        """Any n is valid."""

    def __call__(self, comparison: Comparison) -> Score:
        features, reference = comparison.features, comparison.reference_features
        value = formulas.mind(features, reference, comparison.seed, self.projections)
        return Score(value, {}, {"projections": self.projections}, f"MIND {value:.4g}")
