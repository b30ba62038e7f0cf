"""Detection of images that are copies of training images."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from diffusion.config.value_types import OpenFraction, checked
from diffusion.evaluation import formulas, plots
from diffusion.evaluation.comparison import Comparison, pictures
from diffusion.evaluation.metrics.base import ImageMetric, Score
from diffusion.ground import images
from diffusion.ground.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 16  # images in the figure, nearest to a training image first


@checked
@dataclass(frozen=True)
class Memorisation(ImageMetric):
    """The share of images that are copies of training images, by features and by pixels, with the same share of the
    validation images as control; and the authenticity (Alaa et al. 2022). The figure shows the most suspicious images
    above the training images nearest to them. The value is the larger of both shares.

    k: number of neighbours that define the usual distance. level: the share of validation images that is called copies.
    """

    k: Annotated[int, Ge(2)] = 50
    level: OpenFraction = 0.01

    name = "memorisation"

    def check(self, n: int, comparison: Comparison) -> None:
        needed = int(1 / self.level)
        for split, least in {"train": self.k, "val": needed}.items():
            count = len(comparison.data.split(split)[0])
            if count < least:
                raise UserError(f"metric=memorisation needs {least} images in {split}, but there are {count}")

    def __call__(self, comparison: Comparison) -> Score:
        data, drawn = comparison.data, comparison.images
        train, held_out = comparison.of_split("train"), comparison.of_split("val")
        by_features = formulas.copies(comparison.features, train, held_out, self.k, self.level)
        of_drawn, of_train, of_val = (
            images.from_uint8(each).flatten(1).double()
            for each in (drawn, pictures(data, "train"), pictures(data, "val"))
        )
        by_pixels = formulas.copies(of_drawn, of_train, of_val, self.k, self.level)
        details = {
            "features": {"copies": by_features.rate, "control": by_features.control},
            "pixels": {"copies": by_pixels.rate, "control": by_pixels.control},
            "authenticity": formulas.authenticity(comparison.features, train),
            "authenticity_of_val": formulas.authenticity(held_out, train),
        }
        summary = (
            f"copies of training images: {by_features.rate:.2%} by features, {by_pixels.rate:.2%} by pixels, "
            f"{self.level:.0%} of new images would be classified so\n"
            f"authenticity {details['authenticity']:.3f}, of validation images {details['authenticity_of_val']:.3f}"
        )
        figure = _sheet(drawn, pictures(data, "train"), by_features, by_pixels)
        value = max(by_features.rate, by_pixels.rate)
        return Score(value, details, {"k": self.k, "level": self.level}, summary, figure)


def _sheet(drawn: Tensor, train: Tensor, *found: formulas.Copies) -> "Figure":
    """Pairs of an image and its nearest training image, the most suspicious first."""
    rows = {}
    for name, copies in zip(("features", "pixels"), found, strict=True):
        order = copies.ratios.argsort()[:_SHOWN]
        pairs = torch.cat([drawn[order], train[copies.sources[order]]], dim=2)
        texts = [f"{copies.ratios[i]:.2f}{' copy' * bool(copies.copied[i])}" for i in order.tolist()]
        rows[name] = [*zip(pairs, texts, strict=True)]
    columns = [str(number) for number in range(1, len(rows["features"]) + 1)]
    return plots.draw_table(rows, columns, ["image", "training"])
