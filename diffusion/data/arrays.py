"""User arrays of any shape (C, H, W) and range: files written by `np.save`, memory-mapped."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from diffusion.conditioners.condition import PREVIOUS, Condition
from diffusion.config.value_types import OpenFraction, checked
from diffusion.data.base import Data, Declaration, labelled
from diffusion.data.lazy_rows import Rows, dtype_of, opened
from diffusion.ground import random
from diffusion.ground.errors import UserError

_RESERVED = {PREVIOUS, "self"}


@checked
class Arrays(Data):
    """train/x.npy and val/x.npy in `path`, of shape (N, C, H, W): floats or integers.

    Every other file NAME.npy next to x.npy, of shape (N, ...), is the condition NAME. label.npy holds classes: integers
    from 0, or -1 for an image without a class. The lines of classes.txt in `path` are the class names; without it, the
    names are the numbers.

    Args (those of Data, and):
        val_fraction: without a folder val, the probability that a row of train is held out for validation. The split
                      of a row depends only on its number, so appended rows do not move others. If a split would be
                      empty, row 0 is moved to it.

    Raises UserError if files are missing, are not numeric arrays, or do not match each other.
    """

    def __init__(self, *, val_fraction: OpenFraction = 0.05, **common):
        super().__init__(**common)
        self.val_fraction = val_fraction
        self._reported = False

    @cached_property
    def declaration(self) -> Declaration:
        file = self.root / "train" / "x.npy"
        if not self.root.is_dir():
            raise UserError(f"dataset.path={self.root} is not a folder: expected one with train/x.npy, and val/x.npy")
        array = opened(file)
        if array.ndim != 4 or 0 in array.shape:
            raise UserError(f"{file} has the shape {array.shape}: expected (N, C, H, W), all greater than 0")
        shape = array.shape[1:]
        if self.shape is not None and tuple(self.shape) != shape:
            raise UserError(f"{file} holds arrays of {shape}, but dataset.shape is {tuple(self.shape)} (C, H, W)")
        return Declaration(dtype_of(array), shape)

    def prepare_data(self) -> None:
        """Prints a summary of the data, once. Raises the same UserErrors as `load`."""
        parts = {split: self.split(split) for split in ("train", "val")}
        if not self._reported:
            self._reported = True
            _print_lines(self._report({split: len(x) for split, (x, _) in parts.items()}))

    def load(self, split: str) -> tuple[Rows, Condition]:
        x, columns = self._x[split], dict(self._columns[split])
        label = columns.pop("label", None)
        known = Condition(len(x)) if label is None else labelled(label)
        return x, known.also(**columns)

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        labels = [columns["label"] for columns in self._columns.values() if "label" in columns]
        if not labels:
            return None
        n, file = 1 + max(int(each.max()) for each in labels), self.root / "classes.txt"
        if not file.is_file():
            return tuple(map(str, range(n)))
        try:
            names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
        except (OSError, UnicodeError) as error:
            raise UserError(f"{file}: cannot be read as text ({error})") from None
        if len(names) < n or len({*names}) < len(names):
            raise UserError(
                f"{file} has {len({*names})} names, but label.npy has {n} classes: expected one line per class"
            )
        return names

    @cached_property
    def _x(self) -> dict[str, Rows]:
        dtype, shape = self.declaration
        array = opened(self.root / "train" / "x.npy")
        if not self._has_val:
            x = {split: Rows(array, rows) for split, rows in self._rows(len(array)).items()}
        else:
            x = {"train": Rows(array), "val": Rows(opened(self.root / "val" / "x.npy"))}
            if (x["val"].dtype, x["val"].shape[1:]) != (dtype, shape):
                raise UserError(
                    f"{self.root / 'val' / 'x.npy'} holds {x['val'].dtype} of shape {tuple(x['val'].shape)}, but "
                    f"train/x.npy {dtype} of {tuple(x['train'].shape)}: expected the same, except for N"
                )
        for split, rows in x.items():
            rows.check_finite(self._folder(split) / "x.npy")
        return x

    @cached_property
    def _columns(self) -> dict[str, dict[str, Tensor]]:
        """The conditions by split and name: floats as float32, integers as int64."""
        found = {split: self._conditions(split) for split in ("train", "val")}
        shapes = [{name: each.shape[1:] for name, each in columns.items()} for columns in found.values()]
        if shapes[0] != shapes[1]:
            train, val = (", ".join(f"{name} {tuple(shape)}" for name, shape in each.items()) for each in shapes)
            raise UserError(f"{self.root}: train has the conditions {train or 'none'}, but val {val or 'none'}")
        return found

    def _conditions(self, split: str) -> dict[str, Tensor]:
        x, found = self._x[split], {}
        for file in sorted(self._folder(split).glob("*.npy")):
            if file.name != "x.npy" and not file.name.startswith("."):
                if not file.stem.isidentifier() or file.stem in _RESERVED:
                    raise UserError(
                        f"{file}: expected the name of a condition (letters, digits and _), such as vector.npy"
                    )
                array = opened(file)
                if array.ndim == 0 or len(array) != len(x.array):
                    raise UserError(f"{file} has the shape {array.shape}: expected {len(x.array):,} rows, as x.npy has")
                rows = Rows(array, x.rows)
                rows.check_finite(file)
                found[file.stem] = rows[:].long() if array.dtype.kind in "iu" else rows[:].float()
        if "label" in found:
            _check_labels(self._folder(split) / "label.npy", found["label"])
        return found

    @property
    def _has_val(self) -> bool:
        return (self.root / "val").exists()

    def _folder(self, split: str) -> Path:
        return self.root / (split if self._has_val else "train")

    def _rows(self, n: int) -> dict[str, Tensor]:
        if n < 2:
            raise UserError(f"{self.root / 'train' / 'x.npy'} has {n} row: expected 2 or more (one is for validation)")
        held_out = random.uniform(0, "arrays", torch.arange(n)) < self.val_fraction
        if held_out.all() or not held_out.any():
            held_out[0] = not held_out[0]
        return {"train": (~held_out).nonzero()[:, 0], "val": held_out.nonzero()[:, 0]}

    def _report(self, counts: dict[str, int]) -> Iterator[str]:
        (dtype, shape), columns = self.declaration, self._columns["train"]
        names = ", ".join(f"{name} {tuple(each.shape[1:]) or ''}".strip() for name, each in columns.items())
        yield f"{self.root}: {'x'.join(map(str, shape))} (C, H, W), {str(dtype)[6:]}, conditions: {names or 'none'}"
        rule = "by the folders, not by val_fraction" if self._has_val else "by the number of each row"
        yield f"split {rule}: train {counts['train']:,}, val {counts['val']:,}"


def _check_labels(file: Path, labels: Tensor) -> None:
    if labels.dtype != torch.int64 or labels.ndim != 1 or labels.min() < -1 or labels.max() < 0:
        raise UserError(
            f"{file}: expected one class per row, integers (N,) from 0, or -1 for none; the file holds "
            f"{labels.dtype} of shape {tuple(labels.shape)} from {labels.min():g} to {labels.max():g}"
        )


@rank_zero_only
def _print_lines(lines: Iterator[str]) -> None:
    print(*lines, sep="\n", flush=True)
