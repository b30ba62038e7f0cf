"""The class of an image: its number or its name, and its embedding."""

import numpy as np
import pytest
import torch

from diffusion.conditioners.label import LabelEmbedding
from diffusion.ground.errors import UserError
from tests.helpers.labelled import drawn_labels, lit


def test_no_label_is_the_last_row():
    embedding = LabelEmbedding(10, 4)
    rows = embedding(torch.tensor([3, 0, 9]), torch.tensor([False, True, False]))
    torch.testing.assert_close(rows, embedding.weight[[3, 10, 9]])


@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (2, [2, 2, 2]),
        (np.int64(1), [1, 1, 1]),
        (torch.tensor(1), [1, 1, 1]),
        ("dog", [1, 1, 1]),
        ("7", [2, 2, 2]),
        ([0, 1, 2], [0, 1, 2]),
        (["cat", 1, "7"], [0, 1, 2]),
        ((2, 1, 0), [2, 1, 0]),
        (range(3), [0, 1, 2]),
        (np.array([2, 0, 1]), [2, 0, 1]),
        (torch.tensor([2, 0, 1], dtype=torch.int32), [2, 0, 1]),
        (torch.tensor([2, 0, 1], dtype=torch.uint8), [2, 0, 1]),
    ],
)
def test_a_class_is_a_number_or_a_name_for_all_images_or_for_each(y, labels):
    assert drawn_labels(lit(), 3, y=y) == labels
    assert drawn_labels(lit(), 3, y=y, batch_size=2) == labels


@pytest.mark.parametrize(
    ("y", "reported"),
    [
        (3, "y=3: no such class; choose among 0 \\(cat\\), 1 \\(dog\\), 2 \\(7\\)"),
        (-1, "y=-1: no such class.*; y=None draws without a class"),
        ([0, 1, -1], "y=-1: no such class"),
        (torch.tensor([0, 1, 10**12]), "y=1000000000000: no such class"),
        ("bird", "y='bird': no such class"),
        (True, "y=True: no such class"),
        (1.0, "y=1.0: no such class"),
        (torch.tensor([0.0, 1.0, 2.0]), "y=0.0: no such class"),
        ([None, 1, 1], "y=None: no such class"),
        ([], "y has 0 classes for 3 images: give one for all, or one for each"),
        ([0, 1], "y has 2 classes for 3 images"),
        (torch.zeros(64, dtype=torch.int64), "y has 64 classes for 3 images"),
        (torch.zeros(3, 1, dtype=torch.int64), "y=.*0.*: no such class"),
        ({"cat": 1}, "y={'cat': 1}: no such class"),
        (object(), "y=<object.*>: no such class"),
    ],
)
def test_an_unknown_class_is_rejected(y, reported):
    with pytest.raises(UserError, match=reported):
        lit().sample(3, y=y, progress=False)
