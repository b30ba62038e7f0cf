"""Distributions of t in training."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from diffusion.config.value_types import Count, Positive, PositiveFraction, checked
from diffusion.ground import random
from diffusion.schedule import Schedule

# Its multiples modulo 1 are evenly spread, for any number of them and any start.
GOLDEN = 0.6180339887498949


def steps(u: Tensor, T: int) -> Tensor:
    """Maps u in [0, 1) to t in {1, ..., T}, in equal parts. float64, the shape of u."""
    return (u * T).floor() + 1


class Timesteps(ABC):
    """Draws t for images by their index in the run, independent of how a batch is split."""

    def draw(self, seed: int, index: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """t in steps, and the importance weight of each loss, both float64 (B,). index: int64 (B,)."""
        t = self.of_uniform(self.uniform(seed, index), schedule)
        return t, torch.ones_like(t)

    def uniform(self, seed: int, index: Tensor) -> Tensor:
        """In [0, 1), float64 (B,)."""
        return random.uniform(seed, "train/t", index)

    @abstractmethod
    def of_uniform(self, u: Tensor, schedule: Schedule) -> Tensor:
        """t as a function of uniform u, float64 (B,)."""

    def observe(self, t: Tensor, loss: Tensor, gather: Callable[[Tensor], Tensor]) -> None:  # noqa: B027
        """Called after each batch with its losses (B,) at t (B,), on the device. gather: concatenates a tensor over all
        processes; a subclass that learns from the losses calls it, and waits for the device."""

    def state_dict(self) -> dict[str, Tensor]:
        """The learnt state, for the checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Restores the state of a checkpoint; empty if it was trained with another choice."""


class Uniform(Timesteps):
    """t ~ Uniform{1, ..., T} (Ho et al. 2020, Algorithm 1, line 3)."""

    def of_uniform(self, u, schedule):
        return steps(u, schedule.T)


class Stratified(Uniform):
    """Uniform, and evenly spread over 1..T in any run of consecutive images: a golden-ratio sequence over the whole
    training, so that every batch, each process's part of it and each group of accumulated batches is stratified. The
    seed sets the start of the sequence."""

    def uniform(self, seed, index):
        return (super().uniform(seed, torch.zeros_like(index)) + index.double() * GOLDEN) % 1


@checked
class LogNormal(Timesteps):
    """log(sigma_t / alpha_t) ~ N(mean, std^2), at real t not below 1 (Karras et al. 2022, Table 1)."""

    def __init__(self, mean: float = -1.2, std: Positive = 1.2):
        self.mean, self.std = mean, std

    def of_uniform(self, u, schedule):
        log_ratio = self.mean + self.std * torch.special.ndtri(u)
        return schedule.t_of_log_snr(-2 * log_ratio).clamp(min=1)


@checked
class LossSecondMoment(Uniform):
    """p(t) proportional to sqrt(E[loss^2]) over the last `history` losses at t, once each t has that many; until then
    uniform (Nichol & Dhariwal 2021, section 3.3). uniform: the share of draws that stays uniform."""

    def __init__(self, history: Count = 10, uniform: PositiveFraction = 0.001):
        self.length, self.share = history, uniform
        self.losses: Tensor | None = None  # (T, history), the newest last
        self.counts: Tensor | None = None  # (T,)

    def draw(self, seed, index, schedule):
        self._prepare(schedule.T)
        p = self.probabilities()
        u = self.uniform(seed, index)
        t = torch.searchsorted(p.cumsum(0), u, right=True).clamp(max=schedule.T - 1)
        return (t + 1).double(), 1 / (schedule.T * p[t])

    def probabilities(self) -> Tensor:
        """Of t = 1..T, float64 (T,)."""
        losses, counts = self._known()
        T = len(counts)
        if (counts < self.length).any():
            return torch.full((T,), 1 / T, dtype=torch.float64)
        p = losses.square().mean(1).sqrt()
        return (1 - self.share) * p / p.sum() + self.share / T

    def observe(self, t, loss, gather):
        """Stores the finite losses of all processes."""
        losses, counts = self._known()
        t, loss = (gather(x.detach()).flatten().cpu() for x in (t, loss))
        finite = loss.isfinite()
        for k, value in zip((t[finite].long() - 1).tolist(), loss[finite].double().tolist(), strict=True):
            losses[k] = torch.cat([losses[k, 1:], losses.new_tensor([value])])
            counts[k] += 1

    def state_dict(self):
        return {} if self.losses is None else {"losses": self.losses, "counts": self.counts}

    def load_state_dict(self, state):
        self.losses, self.counts = state.get("losses"), state.get("counts")

    def _known(self) -> tuple[Tensor, Tensor]:
        if self.losses is None or self.counts is None:
            raise RuntimeError("no state yet: draw or load_state_dict comes first")
        return self.losses, self.counts

    def _prepare(self, T: int) -> None:
        if self.losses is None:
            self.losses = torch.zeros(T, self.length, dtype=torch.float64)
            self.counts = torch.zeros(T, dtype=torch.int64)
