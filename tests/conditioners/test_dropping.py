"""Conditions dropped in training."""

import pytest
import torch

from diffusion.conditioners.condition import Condition
from diffusion.data.batches import Batch
from tests.helpers.labels import labels
from tests.helpers.lit_models import everything_model

pytestmark = pytest.mark.filterwarnings("ignore")


def test_labels_are_dropped_with_the_probability_asked_for():
    model = everything_model()
    model.trainer = type("Training", (), {"training": True})()
    model._trainer = model.trainer
    batch = Batch(torch.zeros(5000, 1, 8, 8), Condition.of(label=torch.full((5000,), 7)), torch.arange(5000))
    y = labels(model.on_before_batch_transfer(batch, 0).condition, batch.x)
    assert set(y.tolist()) == {-1, 7}
    assert (y == -1).double().mean() == pytest.approx(0.3, abs=0.02)
