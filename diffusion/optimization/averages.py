"""Decay profiles of weight averages: `average += (1 - d_n) * (weights - average)` after optimizer step n.

`Profiles` are several such averages at once. Those of `Power` can be combined after training into an average of any
other width (post-hoc reconstruction).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np

from diffusion.config.value_types import Count, Positive, ProperFraction, checked
from diffusion.ground.errors import UserError

_RAMP = 0.05  # EDM's: a half-life is at most this share of the images seen so far
_POWER = "power_"


class Profiles(ABC):
    """Several averages by name. Validation, previews and `weights=ema` use the first; without names there is no
    average."""

    snapshots = 0  # minimum number of earlier states of the averages that a run keeps; 0: none
    names: list[str]

    @abstractmethod
    def decays(self, step: int, batch_size: int) -> list[float]:
        """d_n of each average for optimizer step n = step, counted from 1, each of batch_size images."""


@checked
class Decay(Profiles):
    """One average with d_n = min(decay, (1 + n) / (10 + n)), so that the random initialization fades quickly in a short
    run. decay: 0.9999 suits long runs, 0.999 short ones; 0: no average."""

    def __init__(self, decay: ProperFraction = 0.9999):
        self.decay = decay
        self.names = ["decay"] if decay else []

    def decays(self, step: int, batch_size: int = 1) -> list[float]:
        return [min(self.decay, (1 + step) / (10 + step))][: len(self.names)]


@checked
class HalfLife(Profiles):
    """An average for each half-life, in images, whatever the batch size: d_n = 0.5 ** (batch_size / half-life).

    A half-life is at most 5% of the images seen before step n (Karras et al. 2022, EDM's training loop), so that the
    initialization fades quickly. Raises UserError for a duplicate.
    """

    def __init__(self, half_life: Sequence[Count]):
        self.half_life = list(half_life)
        self.names = _unique("ema.half_life", "half_life_", half_life)

    def decays(self, step: int, batch_size: int) -> list[float]:
        most = _RAMP * (step - 1) * batch_size
        return [0.5 ** (batch_size / min(images, most)) if most else 0.0 for images in self.half_life]


@checked
class Power(Profiles):
    """An average for each sigma_rel: step i of n weighs (i / n) ** gamma, so that the width of the average grows with
    the run (Karras et al. 2024, Eqs. 121-127): d_n = (1 - 1 / n) ** (gamma + 1).

    sigma_rel: the standard deviation of the steps averaged, as a share of the run. Summed exactly, step i weighs
    (i ** (gamma + 1) - (i - 1) ** (gamma + 1)) / n ** (gamma + 1); the initialization has weight 0.
    Raises UserError for a width outside the range of `sigma_rel_to_gamma`, and for a duplicate.
    """

    def __init__(self, sigma_rel: Sequence[Positive] = (0.1, 0.05), snapshots: Count = 16):
        self.gammas = [sigma_rel_to_gamma(width) for width in sigma_rel]
        self.names = _unique("ema.sigma_rel", _POWER, sigma_rel)
        self.snapshots = snapshots

    def decays(self, step: int, batch_size: int = 1) -> list[float]:
        return [(1 - 1 / step) ** (gamma + 1) for gamma in self.gammas]


def widths(names: Iterable[str]) -> dict[str, float]:
    """The sigma_rel of the averages with names of `Power`."""
    return {name: float(name.removeprefix(_POWER)) for name in names if name.startswith(_POWER)}


def sigma_rel_to_gamma(sigma_rel: float) -> float:
    """The exponent whose profile has the relative standard deviation sigma_rel (Karras et al. 2024, Algorithm 2):

        sigma_rel ** 2 = (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)).

    Raises UserError outside (0, 12 ** -0.5): the widest profile, gamma = 0, weighs all steps alike.
    """
    if not 0 < sigma_rel < 12**-0.5:
        raise UserError(f"sigma_rel={sigma_rel} is not between 0 and 0.288: 0.05 averages the last steps, 0.2 most")
    precision = sigma_rel**-2.0
    return float(np.roots([1, 7, 16 - precision, 12 - precision]).real.max())


def coefficients(
    steps: Sequence[int], sigma_rels: Sequence[float], step: int, sigma_rel: float
) -> tuple[np.ndarray, float]:
    """The weights of averages i, of width sigma_rels[i] after steps[i], whose sum is closest to the average of width
    sigma_rel after `step` steps (Karras et al. 2024, Algorithm 3): float64 (n,), with sum 1.

    Also returns the relative error, |sum - target| / |target|, in the L2 norm of profiles over the run.
    """
    t, gamma = np.asarray(steps) / step, np.array([sigma_rel_to_gamma(width) for width in sigma_rels])
    target = sigma_rel_to_gamma(sigma_rel)
    gram = _inner_product(t[:, None], gamma[:, None], t, gamma)
    towards = _inner_product(t, gamma, 1.0, target)
    length = _inner_product(1.0, target, 1.0, target)
    x = np.linalg.lstsq(gram, towards, rcond=None)[0]
    x /= x.sum()
    missed = x @ gram @ x - 2 * x @ towards + length
    return x, float(np.sqrt(max(missed, 0.0) / length))


def _inner_product(t_a, gamma_a, t_b, gamma_b):
    """Of two power profiles that end at t_a and t_b, broadcast (Karras et al. 2024, Eq. 151)."""
    ratio = np.minimum(t_a, t_b) / np.maximum(t_a, t_b)
    later = np.where(t_a < t_b, gamma_b, gamma_a)
    return (gamma_a + 1) * (gamma_b + 1) * ratio**later / ((gamma_a + gamma_b + 1) * np.maximum(t_a, t_b))


def _unique(key: str, prefix: str, values: Sequence[float]) -> list[str]:
    if len(set(values)) < len(values):
        raise UserError(f"{key}={list(values)} has a duplicate")
    return [f"{prefix}{value}" for value in values]
