"""The word `weights`, which is read once, and the weights that it means."""

from pathlib import Path

import pytest

from diffusion.ground.errors import UserError
from diffusion.runs.weights import Weights

PATH = Path("x.ckpt")
RAW, FIRST, SECOND = {"a": 1, "buffer": 0}, {"a": 2, "buffer": 0}, {"a": 3}
CONTENTS = {"state_dict": RAW, "ema_state_dict": FIRST, "averages": {"one": {"a": 2}, "two": SECOND}}


@pytest.mark.parametrize(
    ("word", "meant", "found"),
    [
        ("ema", Weights(), FIRST),
        ("raw", Weights(raw=True), RAW),
        ("two", Weights(name="two"), {**SECOND, "buffer": 0}),
    ],
)
def test_a_name_selects_weights(word, meant, found):
    assert Weights.of(word) == meant
    assert Weights.of(word).in_checkpoint(CONTENTS, PATH) == found


def test_a_number_is_a_width():
    assert Weights.of(0.08) == Weights(width=0.08)
    with pytest.raises(UserError, match=r"weights=0.08: a width needs a run trained with ema=power"):
        Weights.of(0.08).in_checkpoint({**CONTENTS, "global_step": 3}, PATH)


def test_missing_weights_are_reported():
    with pytest.raises(UserError, match=r"weights=three: x.ckpt has ema, raw, one, two"):
        Weights.of("three").in_checkpoint(CONTENTS, PATH)
    with pytest.raises(UserError, match=r"x.ckpt: trained without EMA \(ema.decay=0\); use weights=raw"):
        Weights.of("ema").in_checkpoint({"state_dict": RAW}, PATH)
