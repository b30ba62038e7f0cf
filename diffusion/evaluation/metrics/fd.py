"""The Frechet distance of features, and its extrapolation to infinitely many images."""

import warnings
from dataclasses import dataclass

from diffusion.config.value_types import checked
from diffusion.evaluation import formulas
from diffusion.evaluation.comparison import Comparison
from diffusion.evaluation.formulas import Moments
from diffusion.evaluation.metrics.base import ImageMetric, Score
from diffusion.ground.errors import Notice, UserError

_USUAL = 10_000  # images; with fewer, comparisons with published values are rarely valid


@checked
@dataclass(frozen=True)
class FrechetDistance(ImageMetric):
    """|m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of features (Heusel et al. 2017), FID with the features
    of Inception. It decreases with n: the details include the extrapolation to infinite n (Chong & Forsyth 2020) if n
    is at least 4 d. Raises UserError for n below 2 d."""

    name = "fd"

    def check(self, n: int, comparison: Comparison) -> None:
        width = comparison.extractor.width
        if n < 2 * width:
            raise UserError(
                f"metric=fd: {n} images are fewer than twice the {width} features, too few for a covariance: set "
                f"n={2 * width} or more, or use metric=kid or metric=mind"
            )
        if n < _USUAL:
            text = f"metric=fd depends on n below {_USUAL:,} images: compare it only with values of n={n}"
            warnings.warn(text, Notice, stacklevel=2)

    def __call__(self, comparison: Comparison) -> Score:
        features, reference = comparison.features, comparison.reference_moments
        value = formulas.frechet(Moments.of(features), reference)
        details: dict[str, float] = {}
        if len(features) >= 4 * comparison.extractor.width:
            details["infinite_n"] = formulas.frechet_infinity(features, reference, comparison.seed).value
        limit = "".join(f", {each:.4g} extrapolated to infinite n" for each in details.values())
        return Score(value, details, {}, f"Frechet distance {value:.4g}{limit}")
