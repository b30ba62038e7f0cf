"""Noise as a function of (seed, purpose, index) only.

The same image gets the same noise in a batch of any size, on any number of devices and in any order, so a run can
be resumed without stored generator states, and eight processes draw the same noise as one.

The CPU generator of torch keeps only the low 32 bits of a seed, so the index is mapped to a seed by a keyed *bijection*
on 32 bits: two indices below 2**32 never share a stream, which a 64-bit hash truncated to 32 bits cannot guarantee.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def _key(seed: int, purpose: str) -> tuple[int, int]:
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def _mix(x: Tensor) -> Tensor:
    """A bijection on 32 bits that scatters neighbours (Wellons' lowbias32; int64 products wrap, low bits hold)."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def stream_seeds(seed: int, purpose: str, index: Tensor) -> Tensor:
    """Seeds of the streams of images `index`: int64 (B,) in [0, 2**32), distinct for distinct indices below 2**32.

    Higher bits of an index choose another key, so a run longer than 2**32 images continues with new streams.
    """
    first, second = _key(seed, purpose)
    high = _mix((index >> 32) & _MASK)
    return _mix(_mix(((index & _MASK) + first + high) & _MASK) ^ second)


def uniform(seed: int, purpose: str, index: Tensor) -> Tensor:
    """One number per index, uniform in [0, 1). index: int64 (B,). Returns float64 (B,)."""
    return stream_seeds(seed, purpose, index).double() / 2**32


def normal(seed: int, purpose: str, index: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal noise, float32 (B, *shape). index: int64 (B,); row i depends on (seed, purpose, index[i])."""
    noise = torch.empty(len(index), *shape)
    generator = torch.Generator()
    for row, stream in zip(noise, stream_seeds(seed, purpose, index).tolist(), strict=True):
        row.normal_(generator=generator.manual_seed(stream))
    return noise


def permutation(seed: int, purpose: str, n: int) -> Tensor:
    """A random order of 0..n-1, int64 (n,)."""
    stream = int(stream_seeds(seed, purpose, torch.tensor([0])))
    return torch.randperm(n, generator=torch.Generator().manual_seed(stream))


def seed_torch(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seeds the generators of torch for one training step (dropout), so that a resumed step draws the same.

    Only the generators in use: torch.manual_seed checks every kind of device, which takes 1 ms per step.
    """
    stream = int(stream_seeds(seed, f"torch/{rank}", torch.tensor([step])))
    torch.default_generator.manual_seed(stream)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(stream)


class Streams:
    """One stream of standard normal noise per image: the start x_T first, then the noise of each step, in order.

    index: int64 (B,); shape: that of one image; device: of the returned noise. It is always drawn on the CPU, in
    float32, so that a seed gives the same image on every device.
    """

    def __init__(
        self, seed: int, purpose: str, index: Tensor, shape: Sequence[int], device: torch.device | str = "cpu"
    ):
        streams = stream_seeds(seed, purpose, index).tolist()
        self.generators = [torch.Generator().manual_seed(stream) for stream in streams]
        self.shape = tuple(shape)
        self.device = device

    def normal(self) -> Tensor:
        """The next noise of every stream: float32 (B, *shape)."""
        noise = torch.empty(len(self.generators), *self.shape)
        for row, generator in zip(noise, self.generators, strict=True):
            row.normal_(generator=generator)
        return noise.to(self.device)
