"""The times that a sampler visits: float64 (steps + 1,), decreasing to 0."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffusion.config.value_types import whole_or_none
from diffusion.ground.errors import UserError
from diffusion.schedule import Schedule

# EDM's range of sigma / alpha (Karras et al. 2022): above it x is pure noise to a network, below it a finished image.
_NOISE, _IMAGE = 80.0, 0.002


def trailing(schedule: Schedule, steps: int) -> Tensor:
    """T, then evenly down (Lin et al. 2023): every step count starts from T."""
    return _whole(schedule.T * (1 - _down(steps)), schedule, steps)


def leading(schedule: Schedule, steps: int) -> Tensor:
    """1, then up by T // steps, which may end well below T (Song et al. 2020, DDIM)."""
    return torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (schedule.T // steps) + 1


def linspace(schedule: Schedule, steps: int) -> Tensor:
    """Evenly from T to 1."""
    return _whole(torch.linspace(schedule.T - 1, 0, steps, dtype=torch.float64), schedule, steps) + 1


def quadratic(schedule: Schedule, steps: int) -> Tensor:
    """Even in sqrt(t): more steps near the data (DDIM, appendix D.2)."""
    return schedule.T * (1 - _down(steps)) ** 2


def angle(schedule: Schedule, steps: int) -> Tensor:
    """T, then evenly down in the angle atan(sigma / alpha), by which a step of DDIM rotates x (Salimans & Ho 2022,
    appendix D). Both ends are finite, so no step is wasted where log-SNR goes to infinity and x hardly changes. With a
    cosine schedule these are about the times of `trailing`.
    """
    noisiest = torch.atan((-_reached(schedule, torch.tensor(-1e9)) / 2).exp())  # of all times with a signal
    angles = noisiest * (1 - _down(steps))
    times = schedule.t_of_log_snr(-2 * angles.tan().log()).cpu()
    times[0] = schedule.T
    return times


def log_snr(schedule: Schedule, steps: int) -> Tensor:
    """Evenly in log-SNR (Lu et al. 2022, DPM-Solver) over `_seen`, with 0 as the last time."""
    return _from_noise(schedule, _even_in_log_snr(schedule, _seen(schedule), _down(steps)))


def karras(schedule: Schedule, steps: int) -> Tensor:
    """Even in (sigma / alpha)^(1 / 7) (Karras et al. 2022, Eq. 5) over `_seen`, with 0 as the last time."""
    return _from_noise(schedule, _even_in_root(schedule, _seen(schedule), _down(steps)))


def log_snr_full(schedule: Schedule, steps: int) -> Tensor:
    """Evenly in log-SNR from T to 1, without limits: called log_snr in files of format 0."""
    return _even_in_log_snr(schedule, _ends(schedule), torch.linspace(0, 1, steps, dtype=torch.float64))


def karras_full(schedule: Schedule, steps: int) -> Tensor:
    """Even in (sigma / alpha)^(1 / 7) from T to 1, without limits: called karras in files of format 0."""
    return _even_in_root(schedule, _ends(schedule), torch.linspace(0, 1, steps, dtype=torch.float64))


SPACINGS: dict[str, Callable[[Schedule, int], Tensor]] = {
    spacing.__name__: spacing
    for spacing in (trailing, leading, linspace, quadratic, angle, log_snr, karras, log_snr_full, karras_full)
}


def visit(schedule: Schedule, times: str | Sequence[float], steps: int | None, beyond: bool) -> Tensor:
    """The times of a sampler, float64 (steps + 1,), strictly decreasing to 0.

    times: a name in SPACINGS, or a list of times. steps: 1..T, None for all T, or for the length of the list.
    beyond: whether steps may exceed T. Raises UserError for invalid times or steps.
    """
    if not isinstance(times, str):
        return _listed(schedule, times, steps)
    if times not in SPACINGS:
        raise UserError(f"sampler.times={times}: expected {', '.join(SPACINGS)}, or a list of times that ends with 0")
    steps = schedule.T if steps is None else steps
    most = schedule.T if not beyond or times == "leading" else float("inf")
    if whole_or_none(steps) is None or not 1 <= steps <= most:
        raise UserError(f"sampler.steps={steps!r}: expected 1 to {schedule.T}, the steps of the schedule")
    visited = torch.cat([SPACINGS[times](schedule, steps), torch.zeros(1, dtype=torch.float64)])
    if not (visited.diff() < 0).all():
        raise UserError(f"sampler.steps={steps}: more than this schedule has times for with times={times}; use fewer")
    return visited


def from_time(times: Tensor, t: float, T: int) -> Tensor:
    """t, then those of the times (steps + 1,) below it. Raises UserError unless 0 < t <= T."""
    if not 0 < t <= T:
        raise UserError(f"task.t={t:g}: expected a time in steps, above 0 and at most T={T}")
    return torch.cat([times.new_tensor([t]), times[times < t]])


def with_jumps(times: Tensor, length: int, resamples: int) -> Tensor:
    """The times (steps + 1,) with every stretch of `length` steps repeated `resamples` times: down, back up to its
    start, down again, ... (Lugmayr et al. 2022, RePaint, appendix B). The last stretch may be shorter.
    """
    walked = [times[:1]]
    for first in range(0, len(times) - 1, length):
        stretch = times[first : first + length + 1]
        walked += [stretch[1:], *[stretch] * (resamples - 1)]
    return torch.cat(walked)


def _listed(schedule: Schedule, times: Sequence[float], steps: int | None) -> Tensor:
    visited = torch.tensor([float(t) for t in times], dtype=torch.float64)
    falls = len(visited) > 1 and bool((visited.diff() < 0).all()) and visited[-1] == 0
    if not falls or visited[0] > schedule.T:
        raise UserError(f"sampler.times={list(times)}: expected times that decrease from at most {schedule.T} to 0")
    if steps not in (None, len(visited) - 1):
        raise UserError(f"sampler.steps={steps}: the list of times has {len(visited) - 1} steps; use steps=null")
    return visited


def _whole(times: Tensor, schedule: Schedule, steps: int) -> Tensor:
    """Rounds to whole steps of the schedule, if it has enough."""
    return times.round() if steps <= schedule.T else times


def _down(steps: int) -> Tensor:
    """0, 1 / steps, ..., without the 1: float64 (steps,)."""
    return torch.arange(steps, dtype=torch.float64) / steps


def _even_in_log_snr(schedule: Schedule, ends: Tensor, fractions: Tensor) -> Tensor:
    return schedule.t_of_log_snr(torch.lerp(ends[0], ends[1], fractions)).cpu()


def _even_in_root(schedule: Schedule, ends: Tensor, fractions: Tensor, rho: float = 7.0) -> Tensor:
    first, last = (ends / (-2 * rho)).exp()
    return schedule.t_of_log_snr(-2 * rho * torch.lerp(first, last, fractions).log()).cpu()


def _ends(schedule: Schedule) -> Tensor:
    """log-SNR at T and at 1, float64 (2,)."""
    ends = schedule.log_snr(torch.tensor([schedule.T, 1.0], dtype=torch.float64)).cpu()
    if ends[0] == float("-inf"):
        raise UserError("log-SNR is infinite at T with zero_terminal_snr: use sampler.times=log_snr or karras")
    return ends


def _seen(schedule: Schedule) -> Tensor:
    """log-SNR at T and at 1, clamped to the range in which a network can tell noise levels apart: float64 (2,)."""
    ends = schedule.log_snr(torch.tensor([schedule.T, 1.0], dtype=torch.float64)).cpu()
    return _reached(schedule, ends.clamp(-2 * math.log(_NOISE), -2 * math.log(_IMAGE)))


def _reached(schedule: Schedule, log_snr: Tensor) -> Tensor:
    """The nearest log-SNR in the range of the schedule: a table with zero terminal SNR jumps from T - 1 to T."""
    return schedule.log_snr(schedule.t_of_log_snr(log_snr)).cpu()


def _from_noise(schedule: Schedule, times: Tensor) -> Tensor:
    """Replaces the first time with T, unless x is already pure noise there."""
    if schedule.log_snr(times[0]) > -2 * math.log(_NOISE) + 1e-6:
        times[0] = schedule.T
    return times
