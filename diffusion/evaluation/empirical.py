"""The empirical distribution of a dataset, and its denoiser E[x_0 | x_t] in closed form."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.denoiser import Prediction
from diffusion.schedule import Schedule, broadcast, precise

BLOCK = 4096  # images of the set per block


def _itself(stored: Tensor) -> Tensor:
    return stored


@dataclass(frozen=True)
class Empirical:
    """The distribution with probability 1 / N on each of N training images.

    images: (N, C, H, W), as stored, in memory or in a memory map. encode: maps them to x_0. condition: of the images,
    with the names that the denoiser receives. mirrored: the mirror image of each image is included, as in a training
    with `flip`; there are 2 N images then.
    """

    images: Tensor
    encode: Callable[[Tensor], Tensor] = _itself
    condition: Condition | None = None
    mirrored: bool = False

    def __len__(self) -> int:
        return len(self.images) * (1 + self.mirrored)

    def x_0(self, rows: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Some of the images, (B, C, H, W). rows: int64 (B,), on the CPU."""
        x_0 = self.encode(self.images[rows % len(self.images)].to(device))
        if not self.mirrored:
            return x_0
        mirrored = (rows >= len(self.images)).to(device)
        return torch.where(broadcast(mirrored, x_0) > 0, x_0.flip(-1), x_0)

    def conditions(self, rows: Tensor) -> Condition | None:
        """The conditions of some of the images; rows: as for `x_0`."""
        return None if self.condition is None else self.condition.rows(rows % len(self.images))

    @cached_property
    def kinds(self) -> Tensor:
        """Numbers that are equal for images with the same condition: int64 (N,), in the order of `images`."""
        return torch.zeros(len(self.images)).long() if self.condition is None else _kinds(self.condition)


def _kinds(condition: Condition) -> Tensor:
    """Numbers that are equal for rows with the same condition: int64 (B,). condition: on the CPU."""
    columns = [torch.zeros(len(condition), 1, dtype=torch.float64)]
    for name, tensor in condition.tensors.items():
        absent = condition.absent.get(name, torch.zeros(len(condition), dtype=torch.bool))[:, None]
        columns += [absent.double(), tensor.reshape(len(tensor), -1).double().masked_fill(absent, 0)]
    return torch.cat(columns, dim=1).unique(dim=0, return_inverse=True)[1]


class EmpiricalDenoiser:
    """The exact denoiser of an empirical distribution, which has the smallest possible squared error on it:

        E[x_0 | x_t] = sum_i softmax_i(-|x_t - alpha_t x_i|^2 / (2 sigma_t^2)) x_i,    t > 0

    (Karras et al. 2022, Eq. 57). Given a condition, the sum is over the images with exactly that condition.

    The set is read once per call, `block` images at a time, and the softmax is rescaled to the largest exponent so far.
    The computation is in the wider of the precisions of x_t and x_0. In float32 the error of an exponent is about
    1e-7 SNR |x_0|^2, which only shifts weight between images that are nearer to each other than the noise: the error
    of the squared error of eps is less than 1e-4, for SNR up to 1e4.

    Raises ValueError for a condition that no image has.
    """

    def __init__(self, schedule: Schedule, data: Empirical, block: int = BLOCK):
        self.schedule = schedule
        self.data = data
        self.block = block

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """As in `Denoise`."""
        t = precise(t)
        alpha, sigma = self.schedule(t)
        x_0 = self._x_0(x_t, alpha, sigma, self._sources(condition)).reshape(x_t.shape)
        return Prediction(x_0.to(x_t), x_t, t, alpha, sigma)

    def _sources(self, condition: Condition | None) -> Callable[[Tensor], Tensor] | None:
        """Rows (n,) -> bool (B, n), the images that are possible origins of x_t; None: all."""
        known = self.data.condition
        if condition is None or known is None:
            return None
        kind = _kinds(known.cat(condition.to("cpu")))
        of_set, asked = kind[: len(known)], kind[len(known) :]
        if not torch.isin(asked, of_set).all():
            raise ValueError("no image of the set has this condition")
        return lambda rows: asked[:, None] == of_set[rows % len(known)]

    def _x_0(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, sources: Callable[[Tensor], Tensor] | None) -> Tensor:
        """(B, D)."""
        rows = torch.arange(len(self.data)).split(self.block)
        first = self.data.x_0(rows[0], x_t.device).flatten(1)
        x_t = x_t.flatten(1).to(torch.promote_types(x_t.dtype, first.dtype))
        centre = first.to(x_t).mean(0)  # distances are invariant to it, and have smaller rounding errors
        x_t, linear, square = x_t - broadcast(alpha, x_t) * centre, alpha / sigma**2, (alpha / sigma) ** 2 / 2
        top = x_t.new_full((len(x_t), 1), torch.finfo(x_t.dtype).min)
        total, x_0 = torch.zeros_like(top), torch.zeros_like(x_t)
        for some in rows:
            x = self.data.x_0(some, x_t.device).flatten(1).to(x_t) - centre
            products = x_t @ x.T
            exponent = broadcast(linear, products) * products - broadcast(square, products) * x.square().sum(1)
            if sources is not None:
                exponent.masked_fill_(~sources(some).to(x_t.device), -torch.inf)
            before, top = top, torch.maximum(top, exponent.amax(1, keepdim=True))
            rescale, weight = (before - top).exp(), exponent.sub_(top).exp_()
            total = rescale * total + weight.sum(1, keepdim=True)
            x_0 = rescale * x_0 + weight @ x
        return x_0 / total + centre
