"""Condition: all that a network is given beside x_t and t."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

PREVIOUS = "previous"  # x_0 as predicted one step before: part of the trajectory, not given by the user


@dataclass  # not frozen: Lightning brings a batch to a precision by setting the fields of a copy
class Condition:
    """Tensors by name, one row an image; a row may be absent, such as the label that was dropped in training.

    Whatever passes it on need not know what is in it: only conditioners, modules of the network, look inside. Nothing
    here changes it: each method returns another.

    size: B, of the batch. tensors: name -> (B, ...). absent: name -> bool (B,), true where the row stands for nothing;
    a name that is missing here is present in every row.
    """

    size: int
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    absent: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, **tensors: Tensor) -> "Condition":
        """One that has at least one tensor, each (B, ...)."""
        return cls(len(next(iter(tensors.values())))).also(**tensors)

    def __len__(self) -> int:
        return self.size

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of what the user gave: all but the previous x_0."""
        return tuple(name for name in self.tensors if name != PREVIOUS)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Condition":
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking), self.size)

    def rows(self, index: Tensor | slice) -> "Condition":
        """Some of the images: numbers, a mask (B,) or a slice."""
        chosen = self._each(lambda tensor: tensor[index], 0)
        return replace(chosen, size=self._count(index, chosen.tensors))

    def cat(self, *others: "Condition") -> "Condition":
        """The images of all, one after another. What one of them does not have is absent in its rows."""
        parts = (self, *others)
        known = {name: tensor for part in parts for name, tensor in part.tensors.items()}
        filled = [part._with_all(known) for part in parts]
        return Condition(
            sum(map(len, parts)),
            {name: torch.cat([part.tensors[name] for part in filled]) for name in known},
            {
                name: torch.cat([part.absent.get(name, part._all(name, False)) for part in filled])
                for name in known
                if any(name in part.absent for part in filled)
            },
        )

    def without(self, mask: Tensor | None = None, names: Collection[str] | None = None) -> "Condition":
        """With rows absent. mask: bool (B,), None for all rows. names: None for all that was `asked` for."""
        dropped = {
            name: self._all(name, True) if mask is None else self.absent.get(name, False) | mask
            for name in self.tensors
            if name in (self.asked if names is None else names)
        }
        return replace(self, absent={**self.absent, **dropped})

    def also(self, **tensors: Tensor) -> "Condition":
        """With more tensors, or others under the same names, present in every row. Raises ValueError where one has
        another number of rows."""
        for name, tensor in tensors.items():
            if tensor.shape[0] != self.size:  # not len, by which an export would take this batch for the only one
                raise ValueError(f"{name} has {len(tensor)} rows, the condition has {self.size}")
        absent = {name: mask for name, mask in self.absent.items() if name not in tensors}
        return replace(self, tensors={**self.tensors, **tensors}, absent=absent)

    def filled(self, name: str, value: float) -> Tensor | None:
        """The tensor of that name with `value` in its absent rows; None if there is no such tensor."""
        tensor = self.tensors.get(name)
        if tensor is None or name not in self.absent:
            return tensor
        return torch.where(_over(self.absent[name], tensor), value, tensor)

    def _count(self, index: Tensor | slice, chosen: Mapping[str, Tensor]) -> int:
        """Of the images that `index` chooses; a mask on a device is waited for only where no tensor tells."""
        for tensor in chosen.values():
            return len(tensor)
        if isinstance(index, slice):
            return len(range(self.size)[index])
        return int(index.sum()) if index.dtype == torch.bool else len(index)

    def _all(self, name: str, value: bool) -> Tensor:
        return torch.full((self.size,), value, device=self.tensors[name].device)

    def _with_all(self, known: Mapping[str, Tensor]) -> "Condition":
        """With every name of `known`, absent where this has none."""
        missing = {
            name: like.new_zeros(self.size, *like.shape[1:]) for name, like in known.items() if name not in self.tensors
        }
        return self.also(**missing).without(names=missing)

    def _each(self, change: Callable[[Tensor], Tensor], size: int) -> "Condition":
        tensors, absent = ({name: change(tensor) for name, tensor in m.items()} for m in (self.tensors, self.absent))
        return Condition(size, tensors, absent)


def _over(mask: Tensor, tensor: Tensor) -> Tensor:
    """A mask (B,) in a shape that broadcasts over (B, ...)."""
    return mask.reshape(-1, *[1] * (tensor.ndim - 1))
