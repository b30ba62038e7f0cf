"""Which exceptions are out of memory, and which are a damaged file."""

import errno

import pytest
import torch

from diffusion.ground.errors import UserError, memory_wanted, reading
from tests.helpers.memory import CUDA

pytestmark = pytest.mark.filterwarnings("ignore")
MPS = "MPS backend out of memory (MPS allocated: 9.05 GB). Tried to allocate 25.34 MB on private pool"
WINDOWS = "DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes"
KINDS = [
    (torch.OutOfMemoryError(CUDA), "20.00 GiB"),
    (RuntimeError(MPS), "25.34 MB"),
    (RuntimeError(WINDOWS), "8 GiB"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), ""),
    (RuntimeError("std::bad_alloc"), ""),
    (MemoryError(), ""),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), ""),
    (OSError(errno.ENOSPC, "No space left on device"), None),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    (ValueError("out of memory"), None),
]


@pytest.mark.parametrize(("error", "wanted"), KINDS, ids=lambda value: str(value)[:30])
def test_what_is_out_of_memory(error, wanted):
    assert memory_wanted(error) == wanted
    wrapped = ValueError("wrapped")
    wrapped.__cause__ = error
    assert memory_wanted(wrapped) == wanted


def test_that_of_this_machine():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert memory_wanted(caught.value) == "4.19e+06 GiB"


def test_no_file_is_called_damaged_for_want_of_memory():
    with pytest.raises(MemoryError), reading("x.ckpt", "a readable checkpoint"):
        raise MemoryError
    with pytest.raises(UserError), reading("x.ckpt", "a readable checkpoint"):
        raise EOFError
