"""References for a training: the floor of the loss on its images, and the exact predictions for some of them."""

import hashlib
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.data.base import Data
from diffusion.denoiser import Denoiser
from diffusion.evaluation.empirical import Empirical
from diffusion.evaluation.floor import Floor, floor, middles, posterior_means
from diffusion.evaluation.tensor_cache import cached
from diffusion.ground.bar import Bar
from diffusion.ground.launch import say
from diffusion.lit.lightning_module import SIMPLE, LitDiffusion
from diffusion.process import Noised
from diffusion.schedule import Schedule

_FORMAT = 1  # of the cached values; changed if the same settings give other values
_PROBE = 1024  # images used to estimate the time for all
_REPORTED = 1.0  # seconds; a longer measurement is announced


@dataclass(frozen=True)
class Reference:
    """The reference values of a network.

    floor: in L_simple, at the midpoints of 20 parts of 1..T. means: see `posterior_means`; None if the floor was
    measured on a subset. condition: of their images.
    """

    floor: Floor
    means: Noised | None
    condition: Condition

    def gap(self, denoiser: Denoiser, batch_size: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """t in steps, and the loss of a denoiser above the floor at each of them, in L_simple: (n,), (n,)."""
        assert self.means is not None
        losses = []
        for rows in torch.arange(len(self.means.t)).split(batch_size):
            some = Noised(*(tensor[rows].to(device) for tensor in vars(self.means).values()))
            losses.append(SIMPLE(denoiser, some, self.condition.rows(rows).to(device)))
        return self.means.t.to(device), torch.cat(losses)


@dataclass(frozen=True)
class Settings:
    """draws: of x_t, for the floor. n: number of images of `Reference.means`. rows: see `floor`."""

    draws: int = 512
    n: int = 256
    rows: int | None = None


def trained_on(data: Data, model: LitDiffusion) -> Empirical:
    """The training images of `data` with the conditions that the denoiser of `model` is trained with."""
    images, condition = data.split("train")
    others = {name for name in condition.tensors if name not in model.conditioning}
    given = condition.without(names=others) if others < condition.tensors.keys() else None
    return Empirical(images, model.space.encode, given, data.flip)


def reference(
    model: LitDiffusion,
    data: Data,
    settings: Settings = Settings(),
    cache: Path | str | None = None,
    device: torch.device | str = "cpu",
) -> Reference:
    """The reference of the training images of `data`, from the cache or measured; prints the expected time. cache: the
    folder, None for that of decoded images. device: for the measurement; the model must be on it."""
    schedule, images = model.denoiser.schedule, trained_on(data, model)
    t = middles(schedule.T)

    def measured() -> dict[str, Tensor]:
        seconds = _seconds(schedule, images, t, settings, device)
        if seconds > _REPORTED:
            say(f"measuring the floor of the loss on {len(images):,} training images: about {seconds:.0f} s, only once")
        return _measured(schedule, images, t, settings, device)

    found = cached("floor", _key(model, data, t, settings), measured, cache)
    made = Floor(t, found["estimates"]).loss(SIMPLE, schedule)
    assert made is not None  # L_simple is a squared error
    if "rows" not in found:
        return Reference(made, None, Condition(0))
    means = Noised(*(found[field.name] for field in fields(Noised)))
    return Reference(made, means, images.conditions(found["rows"]) or Condition(settings.n))


def _measured(
    schedule: Schedule, data: Empirical, t: Tensor, settings: Settings, device: torch.device | str
) -> dict[str, Tensor]:
    draws, n, rows = settings.draws, settings.n, min(settings.rows or len(data), len(data))
    with Bar(total=draws * rows, desc="floor of the loss", unit=" pairs", unit_scale=True, leave=False) as bar:
        found = {"estimates": floor(schedule, data, t, draws, rows=rows, device=device, tick=bar.update).estimates}
    if rows < len(data):
        return found
    means, chosen = posterior_means(schedule, data, n, device=device)
    return {**found, **{name: tensor.float() for name, tensor in vars(means).items()}, "rows": chosen}


def _seconds(schedule: Schedule, data: Empirical, t: Tensor, settings: Settings, device: torch.device | str) -> float:
    """The estimated time of `_measured`, from the time for a few images."""
    images, start = data.images[:_PROBE], time.perf_counter()
    probe = replace(data, images=images, condition=data.conditions(torch.arange(len(images))))
    floor(schedule, probe, t, settings.draws, device=device)
    posterior_means(schedule, probe, settings.n, device=device)
    return (time.perf_counter() - start) * min(settings.rows or len(data), len(data)) / len(probe)


def _key(model: LitDiffusion, data: Data, t: Tensor, settings: Settings) -> str:
    schedule, digest = model.denoiser.schedule, hashlib.blake2b(digest_size=12)
    parts = _FORMAT, data.fingerprint("train"), data.flip, model.space, sorted(model.conditioning), settings
    digest.update(repr(parts).encode())
    digest.update(schedule.log_snr(torch.cat([t, torch.arange(1, schedule.T + 1)])).numpy().tobytes())
    return digest.hexdigest()
