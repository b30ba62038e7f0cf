"""Rows of an array in a file, read on demand."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion.ground.errors import UserError, reading

_PART = 2**25  # approximate number of bytes per read


class Rows:
    """A selection of rows of a memory-mapped array. Indexing by a slice or by int64 (B,) gives a tensor.

    dtype: uint8, float16, float32 and float64 as in the file, other types as float64, for any byte order.
    shape: (N, ...). rows: indices of the selected rows, int64 (N,); None: all.
    """

    def __init__(self, array: np.ndarray, rows: Tensor | None = None):
        self.array = array
        self.rows = torch.arange(len(array)) if rows is None else rows
        self.shape = torch.Size((len(self.rows), *array.shape[1:]))
        self.dtype = dtype_of(array)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        found = self.array[self.rows[index].numpy()]  # a copy, since the rows are indices, not a slice
        return torch.from_numpy(found.astype(_NAMES[self.dtype], copy=False))

    def parts(self) -> Iterator[tuple[int, Tensor]]:
        """All rows in parts that fit into memory: the index of the first row, and the part."""
        step = max(1, _PART // max(1, self.array[:1].nbytes))
        for start in range(0, len(self), step):
            yield start, self[start : start + step]

    def check_finite(self, file: Path) -> None:
        """Raises UserError, with the row, for the first nan or inf."""
        if not self.dtype.is_floating_point or self.array.dtype.kind != "f":
            return
        for start, part in self.parts():
            finite = part.isfinite().reshape(len(part), -1).all(dim=1)
            if not finite.all():
                row = self.rows[start + int(finite.int().argmin())].item()
                raise UserError(f"{file}: row {row} holds nan or inf: expected finite numbers")


def dtype_of(array: np.ndarray) -> torch.dtype:
    """The dtype of the tensors that `Rows` makes of a numeric array."""
    return _KEPT.get(array.dtype.newbyteorder("="), torch.float64)


def opened(file: Path, name: str | None = None) -> np.ndarray:
    """The memory-mapped numbers in a .npy file; nothing is unpickled. name: used in messages. Raises UserError for any
    other file."""
    name = name or str(file)
    if not file.is_file():
        raise UserError(f"{name} is missing")
    with reading(name, "an array of numbers as np.save writes it"):
        array = np.lib.format.open_memmap(file, mode="r")
    if array.dtype.kind not in "fiu":
        raise UserError(f"{name} is an array of {array.dtype}: expected floats or integers")
    return array


_KEPT = {np.dtype(name): getattr(torch, name) for name in ("uint8", "float16", "float32", "float64")}
_NAMES = {dtype: kept for kept, dtype in _KEPT.items()}
