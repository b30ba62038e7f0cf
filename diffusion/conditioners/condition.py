"""Condition: the inputs of a network besides x_t and t."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

PREVIOUS = "previous"  # x_0 as predicted one step before: part of the trajectory, not set by the user


@dataclass  # not frozen: Lightning converts the precision of a batch by setting fields of a copy
class Condition:
    """Tensors by name, one row per image; a row may be absent, such as a label that was dropped in training.

    Only conditioners, which are modules of the network, access the tensors. No method modifies it: each returns another
    condition.

    size: B, of the batch. tensors: name -> (B, ...). absent: name -> bool (B,), true where the row is absent; a name
    that is missing here is present in every row.
    """

    size: int
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    absent: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, **tensors: Tensor) -> "Condition":
        """A condition from at least one tensor, each (B, ...)."""
        return cls(len(next(iter(tensors.values())))).also(**tensors)

    def __len__(self) -> int:
        return self.size

    @property
    def asked(self) -> tuple[str, ...]:
        """The names that the user sets: all but the previous x_0."""
        return tuple(name for name in self.tensors if name != PREVIOUS)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Condition":
        """A copy on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking), self.size)

    def rows(self, index: Tensor | slice) -> "Condition":
        """Some of the images: numbers, a mask (B,) or a slice."""
        chosen = self._each(lambda tensor: tensor[index], 0)
        return replace(chosen, size=self._count(index, chosen.tensors))

    def cat(self, *others: "Condition") -> "Condition":
        """The images of all conditions, concatenated. A name that one of them lacks is absent in its rows."""
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
        """With rows absent. mask: bool (B,), None for all rows. names: None for all names in `asked`."""
        dropped = {
            name: self._all(name, True) if mask is None else self.absent.get(name, False) | mask
            for name in self.tensors
            if name in (self.asked if names is None else names)
        }
        return replace(self, absent={**self.absent, **dropped})

    def also(self, **tensors: Tensor) -> "Condition":
        """With tensors added or replaced, present in every row. Raises ValueError if one has another number of rows."""
        for name, tensor in tensors.items():
            if tensor.shape[0] != self.size:  # not len, which would fix the batch size of an export
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
        """The number of images that `index` selects; synchronises for a mask on a device only if there is no tensor."""
        for tensor in chosen.values():
            return len(tensor)
        if isinstance(index, slice):
            return len(range(self.size)[index])
        return int(index.sum()) if index.dtype == torch.bool else len(index)

    def _all(self, name: str, value: bool) -> Tensor:
        return torch.full((self.size,), value, device=self.tensors[name].device)

    def _with_all(self, known: Mapping[str, Tensor]) -> "Condition":
        """With every name of `known`, absent if missing here."""
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
