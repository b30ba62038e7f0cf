from typing import NamedTuple

import pytest
import torch


class Batch(NamedTuple):
    x_0: torch.Tensor
    t: torch.Tensor
    eps: torch.Tensor


@pytest.fixture
def batch():
    x_0, eps = torch.randn(2, 6, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Batch(x_0, torch.tensor([1.0, 2.0, 100.0, 500.0, 900.0, 1000.0], dtype=torch.float64), eps)
