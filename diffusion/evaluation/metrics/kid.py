"""Kernel Inception Distance."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from diffusion.config.value_types import Count, checked
from diffusion.evaluation import formulas
from diffusion.evaluation.comparison import Comparison
from diffusion.evaluation.metrics.base import ImageMetric, Score
from diffusion.ground.errors import UserError


@checked
@dataclass(frozen=True)
class KernelDistance(ImageMetric):
    """The unbiased MMD^2 with the cubic kernel (x.y / d + 1)^3 (Binkowski et al. 2018), averaged over random subsets:
    its expectation does not depend on n. subsets: their number. size: images in each, at most."""

    subsets: Count = 100
    size: Annotated[int, Ge(2)] = 1000

    name = "kid"

    def check(self, n: int, comparison: Comparison) -> None:
        if n < 2:
            raise UserError(f"metric=kid needs at least 2 images, not {n}")

    def __call__(self, comparison: Comparison) -> Score:
        reference = comparison.reference_features
        mean, std = formulas.kid(comparison.features, reference, comparison.seed, self.subsets, self.size)
        protocol = {"subsets": self.subsets, "size": self.size}
        return Score(mean, {"std": std}, protocol, f"KID {mean:.4g}, standard deviation of a subset {std:.2g}")
