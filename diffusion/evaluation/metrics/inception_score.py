"""The inception score."""

from dataclasses import dataclass

from diffusion.config.value_types import Count, checked
from diffusion.evaluation import formulas
from diffusion.evaluation.comparison import Comparison
from diffusion.evaluation.metrics.base import ImageMetric, Score
from diffusion.ground.errors import UserError


@checked
@dataclass(frozen=True)
class InceptionScore(ImageMetric):
    """exp of the mean divergence of p(class | image) from p(class) (Salimans et al. 2016): the larger the better. It
    needs features with classes, of Inception or a classifier. splits: number of parts whose scores are averaged."""

    splits: Count = 10

    name = "is"

    def check(self, n: int, comparison: Comparison) -> None:
        if comparison.extractor.recipe["features"] not in ("inception", "classifier"):
            raise UserError("metric=is needs features with classes: use features=inception or features=classifier")
        if n < self.splits:
            raise UserError(f"metric=is needs at least one image for each of {self.splits} splits, not {n}")

    def __call__(self, comparison: Comparison) -> Score:
        probabilities = comparison.embedded.probabilities
        assert probabilities is not None  # see `check`
        mean, std = formulas.inception_score(probabilities, self.splits)
        return Score(mean, {"std": std}, {"splits": self.splits}, f"inception score {mean:.4g}, deviation {std:.2g}")
