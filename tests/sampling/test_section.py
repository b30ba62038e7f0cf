"""What the section of sampling reports of its values."""

import pytest

from tests.helpers.drawn import ROW, notes

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["y=all", "n=4"], None),
        (["y=[one,two]", "n=64", "batch_size=64"], None),
        (["compare", "y=all"], None),
        (["compare", "y=all", "n=2"], "y has 4 classes, but n=2 images"),
        (["y=all", "n=3"], "y has 4 classes, but n=3 images cover only the first 3: n=4 covers all"),
        ([*ROW, "y=[one,three]"], "y has 2 classes, but n=3 images cover only the first 1: n=6 covers all"),
        ([*ROW, "y=[one,three]", "n=4"], None),
    ],
)
def test_classes_that_are_not_sampled_are_reported(sample, given, message):
    found = notes(sample(*given))
    assert [text[: len(message)] for text in found] == [message] if message else not found
