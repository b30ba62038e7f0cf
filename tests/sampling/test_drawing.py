"""Which image is of which class."""

import numpy as np
import pytest

import diffusion
from diffusion.ground import images
from diffusion.runs import build
from diffusion.tasks.interpolate import Interpolate
from tests.helpers.drawn import ROW, drawn, notes

pytestmark = pytest.mark.filterwarnings("ignore")


def expected(ckpt, labels, points):
    """Each image of its row by itself, of the class that is meant."""
    model = diffusion.load(ckpt)
    task = Interpolate("3", "8", points, None, model.space)
    sampler = build.instantiate({"_target_": "diffusion.samplers.ddim.DDIM", "steps": 4})
    found = model.sample(len(labels), y=labels, task=task, sampler=sampler, progress=False)
    return images.to_uint8(found)[:, 0].numpy().astype(int)


def test_interpolation_has_a_class_a_row(ckpt, sample):
    done = sample(*ROW, "y=[one,three]", "n=9")
    whole = expected(ckpt, [1, 1, 1, 3, 3, 3, 1, 1, 1], points=3)
    assert abs(drawn(done) - whole).max() <= 1
    assert abs(drawn(done) - expected(ckpt, [1, 3] * 4 + [1], points=3)).max() > 1
    assert notes(done) == []


def test_a_row_that_n_cuts_short_is_completed_later(ckpt, sample):
    line = [*ROW, "y=[one,three]", "batch_size=2"]
    cut = drawn(sample(*line, "n=5"))
    assert len(cut) == 5
    whole = drawn(sample(*line, "n=6"))
    assert abs(whole - expected(ckpt, [1, 1, 1, 3, 3, 3], points=3)).max() <= 1
    assert np.array_equal(whole[:5], cut)
