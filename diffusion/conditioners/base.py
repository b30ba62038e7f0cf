"""Base classes of conditioners, which embed a condition: one conditioner for each name in it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from diffusion.conditioners.condition import Condition
from diffusion.ground.errors import UserError

EMBEDDING, CHANNELS, TOKENS = "embedding", "channels", "tokens"  # what a conditioner can yield


class Given(NamedTuple):
    """The inputs of a network that are made from a condition, None if no conditioner yields them.

    embedding: (B, width), added to that of the time. channels: (B, C, H, W), concatenated with x. tokens:
    (B, L, width), for attention.
    """

    embedding: Tensor | None = None
    channels: Tensor | None = None
    tokens: Tensor | None = None


class Conditioner(ABC):
    """One kind of condition: how a user specifies its rows, and the module that turns them into network inputs.

    A frozen dataclass whose values are in the config; its subclasses are in this folder. drop: the fraction of the rows
    that is absent in training, which guidance needs for comparison. yields: EMBEDDING, CHANNELS or TOKENS.
    """

    yields: ClassVar[str]
    drop: float

    @abstractmethod
    def module(self, width: int, channels: int) -> "Opened":
        """The module inside the network. width: of an embedding or a token; channels: of an image."""

    @classmethod
    def settle(cls, name: str, data: Any) -> dict[str, Any]:
        """The arguments of this class that the dataset (`data.base.ImageData`) determines, by name.

        Raises UserError if the dataset has no such condition.
        """
        return {}

    def means_the_same(self, other: "Conditioner") -> bool:
        """Whether rows for this conditioner are valid for `other`, of another model."""
        return type(self) is type(other)

    def read(self, key: str, text: str) -> Tensor | None:
        """The rows (k, ...) that a command-line value specifies, used in turn; None for `null`. key: its name on the
        command line. Raises UserError."""
        raise UserError(f"{key}={text}: this condition can only be set from Python")

    def rows(self, name: str, value: Any, n: int) -> Tensor:
        """The rows (n, ...) that a Python value specifies. Raises UserError."""
        raise UserError(f"{name}={value!r}: expected a tensor in a Condition")

    def examples(self, n: int) -> Tensor | None:
        """Rows (n, ...) that show the effect of the condition; None if they need data."""
        return None

    def titles(self, rows: Tensor) -> list[str]:
        """The image title for each row."""
        return [""] * len(rows)


def training_rows(name: str, data: Any) -> Tensor:
    """The column `name` of the training split, one row per image, (N, ...). Raises UserError if the dataset has no
    such column."""
    tensors = data.split("train")[1].tensors
    if name not in tensors:
        raise UserError(
            f"conditioning.{name}: {data.name} has no column of that name; dataset=arrays reads them from "
            f"{name}.npy beside x.npy"
        )
    return tensors[name]


class Opened(nn.Module, ABC):
    """The module of a conditioner. channels: how many channels are concatenated; 0 if it yields something else."""

    channels = 0

    @abstractmethod
    def forward(self, rows: Tensor, absent: Tensor | None) -> Tensor:
        """What the conditioner yields. rows: (B, ...); absent: bool (B,), None if no row is."""

    @abstractmethod
    def blank(self, x: Tensor) -> Tensor:
        """Placeholder rows for a batch without any, all of them absent. x: (B, C, H, W)."""


class Conditioners(nn.ModuleDict):
    """All conditioners of a network, by name. Names without a conditioner are ignored.

    takes: the kinds that the network takes. width, channels: as in `Conditioner.module`. Raises UserError for a
    conditioner that yields another kind.
    """

    def __init__(self, described: Mapping[str, Conditioner], takes: Sequence[str], width: int, channels: int):
        for name, conditioner in described.items():
            if conditioner.yields not in takes:
                raise UserError(
                    f"conditioning.{name} yields {_A[conditioner.yields]}, but this network takes "
                    f"{' and '.join(_A[each] for each in takes) or 'no condition'}: choose another network"
                )
        super().__init__({name: conditioner.module(width, channels) for name, conditioner in described.items()})
        self.yields = {name: conditioner.yields for name, conditioner in described.items()}

    @property
    def channels(self) -> int:
        """The number of channels that are concatenated with x."""
        return sum(opened.channels for _, opened in self._opened())

    def _opened(self) -> Iterator[tuple[str, Opened]]:
        for name, module in self.items():
            assert isinstance(module, Opened)
            yield name, module

    def forward(self, condition: Condition | None, x: Tensor) -> Given:
        """x: (B, C, H, W), the network input; condition: of B images, None for an empty one."""
        found: dict[str, list[Tensor]] = {}
        for name, opened in self._opened():
            if condition is not None and name in condition.tensors:
                yielded = opened(condition.tensors[name], condition.absent.get(name))
            else:
                yielded = opened(opened.blank(x), torch.ones(x.shape[0], dtype=torch.bool, device=x.device))
            found.setdefault(self.yields[name], []).append(yielded)
        return Given(
            embedding=reduce(torch.add, found[EMBEDDING]) if EMBEDDING in found else None,
            channels=torch.cat(found[CHANNELS], dim=1).to(x) if CHANNELS in found else None,
            tokens=torch.cat(found[TOKENS], dim=1) if TOKENS in found else None,
        )


_A = {EMBEDDING: "an embedding", CHANNELS: "channels", TOKENS: "tokens"}
