"""The Fréchet distance of the command is that of the formula."""

import pytest

from diffusion.evaluation import formulas
from tests.helpers.picture_folders import write

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_cache")]


def test_the_value_is_that_of_the_formula_on_the_features(digits, evaluate, tmp_path):
    images = digits.split("val")[0][:150]
    [row] = evaluate(f"images={write(tmp_path / 'x', images)}", "dataset=digits", "metric=fd", "features=pixels")
    features, reference = (each.flatten(1).double() / 127.5 - 1 for each in (images, digits.split("train")[0]))
    moments = (formulas.Moments.of(each) for each in (features, reference))
    assert row["value"] == pytest.approx(formulas.frechet(*moments), rel=1e-5)
