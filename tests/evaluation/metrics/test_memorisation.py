"""Copies of training images are found."""

import pytest
import torch

from diffusion.evaluation import formulas
from diffusion.evaluation.comparison import Comparison
from diffusion.evaluation.features.pixels import Pixels
from diffusion.evaluation.metrics.memorisation import Memorisation

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_cache")]


def test_one_per_cent_of_planted_copies_is_found(digits):
    """Training images among new ones, that is validation images. With the rule's own false alarms, 1 % of the rest."""
    train, val = digits.split("train")[0], digits.split("val")[0]
    planted = torch.arange(0, 1500, 500)
    images = torch.cat([val, train[planted]])
    score = Memorisation()(Comparison(images, digits, Pixels().extractor(digits)))
    extra = score.value - score.details["pixels"]["control"]
    assert extra >= 0.9 * len(planted) / len(images)
    found = formulas.copies(*(each.flatten(1).double() for each in (images, train, val)))
    assert found.copied[-3:].all()
    assert torch.equal(found.sources[-3:], planted)
