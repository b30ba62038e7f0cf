import sys

import pytest
import torch

from diffusion.data.digits import Digits
from diffusion.ground.errors import UserError


def digits(**options):
    return Digits(**{"channels": 1, "size": 8, "batch_size": 100, **options})


def test_digits_fill_the_range_and_are_split_without_overlap():
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    data = digits()
    (train, of_train), (val, of_val) = data.split("train"), data.split("val")
    train_y, val_y = of_train.tensors["label"], of_val.tensors["label"]
    assert (len(train), len(val)) == (1500, 297)
    assert torch.cat([train, val]).squeeze(1).div(255 / 16).round().int().tolist() == sklearn.images.tolist()
    assert torch.cat([train_y, val_y]).tolist() == sklearn.target.tolist()
    assert train.min() == 0
    assert train.max() == 255
    assert val_y.bincount().min() > 20, "every digit is in the validation set"
    assert data.classes[3] == "3"


def test_mistakes_are_named(monkeypatch):
    with pytest.raises(UserError, match=r"set dataset\.channels=1 dataset\.size=8"):
        digits(size=28).train_dataloader()
    with pytest.raises(UserError, match=r"dataset\.path='data': expected null, since the digits are part"):
        digits(path="data")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        digits().train_dataloader()
