"""Values of any range: each channel is shifted and scaled to mean 0 and standard deviation 1."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion.config.value_types import NonNegative, checked
from diffusion.ground import images
from diffusion.ground.errors import UserError
from diffusion.process import gaussian_log_likelihood
from diffusion.schedule import precise
from diffusion.spaces.base import Space

_STATISTICS = ("mean", "std", "low", "high")
_VALUES = 2**22  # of the training split, read at a time
_PICTURED = 2**20  # approximate number of values per channel from which the quantiles are computed
_QUANTILES = (0.005, 0.995)


@checked
@dataclass(frozen=True)
class Standardized(Space):
    """x_0 = (stored - mean) / std in each channel.

    Computed in float64 if the device has it, so that values far from 0 keep their precision. A constant channel has
    std 0, and is only shifted.

    mean, std:  of each channel over the training split, C numbers each.
    low, high:  the values of each channel that are shown as black and white: 0 and 255 of uint8, otherwise the
                quantiles 0.005 and 0.995 of (a part of) the training split.
    Those that are None are computed from the data. Raises UserError unless there are C of each.
    """

    mean: Sequence[float] | None = None
    std: Sequence[NonNegative] | None = None
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

    stores = "numbers"

    def __post_init__(self):
        super().__post_init__()
        for name in _STATISTICS:
            object.__setattr__(self, name, _numbers(f"space.{name}", getattr(self, name), self.shape[0]))

    def takes(self, dtype: torch.dtype) -> bool:
        return not dtype.is_complex and dtype != torch.bool

    def encode(self, stored: Tensor) -> Tensor:
        x = precise(stored)
        return ((x - _like(self.mean, x)) / _like(self._scale, x)).float()

    def decode(self, x_0: Tensor) -> Tensor:
        """Returns float32, or float64 if x_0 is."""
        x = precise(x_0)
        return (x * _like(self._scale, x) + _like(self.mean, x)).to(torch.promote_types(torch.float32, x_0.dtype))

    def picture(self, x_0: Tensor) -> Tensor:
        x = self.decode(x_0)
        low, high = _like(self.low, x), _like(self.high, x)
        span = torch.where(high > low, high - low, 1)
        return images.visible(images.to_uint8(2 * (x - low) / span - 1))

    def log_likelihood(self, x_0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return gaussian_log_likelihood(x_0, mean, std)

    @property
    def log_unit(self) -> Tensor:
        return _like(self._scale, torch.empty(0, dtype=torch.float64)).log()

    @property
    def _scale(self) -> Sequence[float]:
        return [std or 1.0 for std in self.std or ()]

    def settled(self, load: Callable[[], Any]) -> Mapping[str, Any]:
        missing = {name for name in _STATISTICS if getattr(self, name) is None}
        if not missing:
            return {}
        x = load()
        found: dict[str, list[float]] = dict(zip(_STATISTICS, (*_mean_and_std(x), *_limits(x)), strict=True))
        return {name: found[name] for name in missing}


def _numbers(name: str, values: Sequence[float] | None, channels: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    numbers = torch.as_tensor(values, dtype=torch.float64)
    if numbers.shape != (channels,) or not numbers.isfinite().all():
        raise UserError(f"{name}={values}: expected a finite number for each of the {channels} channels, or null")
    return tuple(numbers.tolist())


@functools.lru_cache  # a copy to the device would synchronise
def _tensor(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype)[:, None, None].to(device)


def _like(values: Sequence[float] | None, x: Tensor) -> Tensor:
    """`values` as (C, 1, 1), in the type and on the device of x."""
    assert values is not None  # filled before the space is used
    return _tensor(tuple(values), x.dtype, x.device)


def _mean_and_std(x: Any) -> tuple[list[float], list[float]]:
    """Mean and std of each channel, in one pass: sums of squares about the mean of each part, combined as in Chan et
    al. 1979. For a constant channel they are its value and 0, without rounding errors."""
    first, constant = x[0:1].double()[0, :, 0, 0], torch.ones(x.shape[1], dtype=torch.bool)
    count, mean, squares = 0, torch.zeros_like(first), torch.zeros_like(first)
    for part in _parts(x):
        constant &= (part == first[:, None, None]).all(0).flatten(1).all(1)
        n = part[:, 0].numel()
        part_mean = part.mean((0, 2, 3))
        shift = part_mean - mean
        deviations = (part - part_mean[:, None, None]).square().sum((0, 2, 3))
        squares = squares + deviations + shift**2 * (count * n / (count + n))
        mean = mean + shift * (n / (count + n))
        count += n
    mean, std = torch.where(constant, first, mean), torch.where(constant, 0.0, (squares / count).sqrt())
    return mean.tolist(), std.tolist()


def _parts(x: Any) -> Iterator[Tensor]:
    """Parts of x that fit in memory, float64 (n, C, H, W)."""
    step = max(1, _VALUES // x.shape[1:].numel())
    for start in range(0, len(x), step):
        yield x[start : start + step].double()


def _limits(x: Any) -> tuple[list[float], list[float]]:
    channels = x.shape[1]
    if x.dtype == torch.uint8:
        return [0.0] * channels, [255.0] * channels
    rows = torch.arange(0, len(x), -(-len(x) * x.shape[2:].numel() // _PICTURED))
    values = x[rows].double().transpose(0, 1).flatten(1).sort(dim=1).values
    return tuple(values[:, round(q * (values.shape[1] - 1))].tolist() for q in _QUANTILES)
