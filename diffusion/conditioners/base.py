"""What opens a condition: a conditioner for each name in it."""

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
    """What a network is given of a condition, None where nothing yields it.

    embedding: (B, width), to be added to that of the time. channels: (B, C, H, W), to be concatenated with x. tokens:
    (B, L, width), to be attended to.
    """

    embedding: Tensor | None = None
    channels: Tensor | None = None
    tokens: Tensor | None = None


class Conditioner(ABC):
    """One kind of condition: what its rows mean to a user, and which module makes of them what the network takes.

    A frozen dataclass, of which config holds the values; its siblings are in this folder. drop: the part of the rows
    that is absent in training, so that guidance has something to compare with. yields: EMBEDDING, CHANNELS or TOKENS.
    """

    yields: ClassVar[str]
    drop: float

    @abstractmethod
    def module(self, width: int, channels: int) -> "Opened":
        """The module inside the network. width: of an embedding or a token; channels: of an image."""

    @classmethod
    def settle(cls, name: str, data: Any) -> dict[str, Any]:
        """Values that the dataset (`data.base.ImageData`) decides, by the names of this class's arguments.

        Raises UserError where the data has nothing of that name.
        """
        return {}

    def means_the_same(self, other: "Conditioner") -> bool:
        """Whether rows for this one can be given to `other`, of another model."""
        return type(self) is type(other)

    def read(self, key: str, text: str) -> Tensor | None:
        """The rows (k, ...) that a text of the command line asks for, which take turns; None for `null`. key: what the
        command line calls it. Raises UserError."""
        raise UserError(f"{key}={text}: this condition cannot be typed; it is given in Python")

    def rows(self, name: str, value: Any, n: int) -> Tensor:
        """The rows (n, ...) that a value in Python asks for. Raises UserError."""
        raise UserError(f"{name}={value!r}: expected a tensor in a Condition")

    def examples(self, n: int) -> Tensor | None:
        """Rows (n, ...) that show what the condition does; None where there are none to be had without data."""
        return None

    def titles(self, rows: Tensor) -> list[str]:
        """The title of an image for each of the rows."""
        return [""] * len(rows)


def told(name: str, data: Any) -> Tensor:
    """What a dataset tells of each image of its training split under that name, (N, ...). Raises UserError where it
    tells nothing."""
    tensors = data.split("train")[1].tensors
    if name not in tensors:
        raise UserError(
            f"conditioning.{name}: {data.name} has no column of that name; dataset=arrays reads them from "
            f"{name}.npy beside x.npy"
        )
    return tensors[name]


class Opened(nn.Module, ABC):
    """The module of a conditioner. channels: how many channels are concatenated; 0 where another thing is yielded."""

    channels = 0

    @abstractmethod
    def forward(self, rows: Tensor, absent: Tensor | None) -> Tensor:
        """What the conditioner yields. rows: (B, ...); absent: bool (B,), None for no row."""

    @abstractmethod
    def blank(self, x: Tensor) -> Tensor:
        """Rows that stand in where the whole batch has none, all of them absent. x: (B, C, H, W)."""


class Conditioners(nn.ModuleDict):
    """All conditioners of a network, by name. Names that no conditioner has are not looked at.

    takes: what the network takes. width, channels: as in `Conditioner.module`. Raises UserError for a conditioner that
    yields anything else.
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
        """How many are concatenated with those of x."""
        return sum(opened.channels for _, opened in self._opened())

    def _opened(self) -> Iterator[tuple[str, Opened]]:
        for name, module in self.items():
            assert isinstance(module, Opened)
            yield name, module

    def forward(self, condition: Condition | None, x: Tensor) -> Given:
        """x: (B, C, H, W), what the network sees; condition: of B images, None for an empty one."""
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
