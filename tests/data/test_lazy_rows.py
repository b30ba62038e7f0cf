"""Rows of an array in a file."""

import numpy as np
import pytest
import torch

from tests.helpers.fields import arrays


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        *((name, getattr(torch, name)) for name in ("uint8", "float16", "float32", "float64")),
        *((name, torch.float64) for name in ("int8", "int16", "uint16", "int64", "longdouble")),
        *((">f4", torch.float32), (">f8", torch.float64), (">i2", torch.float64)),
    ],
)
def test_every_type_of_number_keeps_its_values(tmp_path, stored, read):
    for split in "train", "val":
        (tmp_path / split).mkdir()
        np.save(tmp_path / split / "x.npy", np.arange(96).reshape(4, 2, 3, 4).astype(stored))
    x, _ = arrays(tmp_path, batch_size=2).split("train")
    assert x.dtype == x[:].dtype == read
    assert torch.equal(x[:].double().flatten(), torch.arange(96).double())
