"""One Brownian path per image: the noise of a stochastic sampler at any number of steps.

Every stochastic reverse step from t to s adds sigma_s (1 - snr_t / snr_s)^(1/2) z, snr = alpha^2 / sigma^2. That is
sigma_s / snr_s^(1/2) times the increment of a Brownian motion B over [snr_t, snr_s], and the increment of one step is
the sum of the increments of two steps that divide it. With more steps a sampler follows the same path more closely;
independent noise would lead to another image.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion.ground.random import normal

_CELLS = 2**12  # of a grid with even spacing in log(snr)
_END = 12.0  # log(snr) / 2 at its last point; at its first point -_END


class BrownianPath:
    """B(snr) of each image, by bisection (Levy's construction): a function of (seed, purpose, index) and snr only.

    index: int64 (B,); shape: of one image; device: of the returned noise. Within a cell of the grid, 0.006 wide in
    log(snr) / 2, all values share one random number.
    """

    def __init__(
        self, seed: int, purpose: str, index: Tensor, shape: Sequence[int], device: torch.device | str = "cpu"
    ):
        self.seed, self.purpose, self.index = seed, purpose, index
        self.shape, self.device = tuple(shape), device
        first = math.sqrt(_snr(0)) * self._normal("first")
        last = first + math.sqrt(_snr(_CELLS) - _snr(0)) * self._normal("last")
        self._points = {0: first, _CELLS: last}  # B at the grid points that the last value needed

    def again(self) -> "BrownianPath":
        """An independent path for the same images, for a trajectory that went back to more noise."""
        return BrownianPath(self.seed, f"{self.purpose}/again", self.index, self.shape, self.device)

    def increment(self, snr_t: float, snr_s: float) -> Tensor:
        """(B(snr_s) - B(snr_t)) / (snr_s - snr_t)^(1/2), standard normal, float32 (B, *shape); snr_t < snr_s.

        Zeros where both are beyond the end of the grid, where sigma is below 1e-5.
        """
        low, high = min(snr_t, _snr(_CELLS)), min(snr_s, _snr(_CELLS))
        if low == high:
            return torch.zeros(len(self.index), *self.shape, device=self.device)
        return ((self._at(high) - self._at(low)) / math.sqrt(high - low)).to(self.device)

    def _at(self, snr: float) -> Tensor:
        """B(snr), for snr from 0 to that of the last point."""
        if snr <= _snr(0):
            return self._points[0] * math.sqrt(snr / _snr(0))
        known, left, right = self._points, 0, _CELLS
        self._points = {end: known[end] for end in (left, right)}
        while right - left > 1:
            middle = (left + right) // 2
            value = known.get(middle)
            self._points[middle] = self._between(left, right, _snr(middle), f"{middle}") if value is None else value
            left, right = (left, middle) if snr < _snr(middle) else (middle, right)
        return self._between(left, right, snr, f"{left}..{right}")

    def _between(self, left: int, right: int, snr: float, name: str) -> Tensor:
        """B(snr) given B at the points left and right of it: a Brownian bridge."""
        share = (snr - _snr(left)) / (_snr(right) - _snr(left))
        std = math.sqrt(share * (_snr(right) - snr))
        return torch.lerp(self._points[left], self._points[right], share) + std * self._normal(name)

    def _normal(self, name: str) -> Tensor:
        return normal(self.seed, f"{self.purpose}/brownian/{name}", self.index, self.shape)


def _snr(point: int) -> float:
    """The snr of a grid point."""
    return math.exp(2 * _END * (2 * point / _CELLS - 1))
