"""Which times a sampler visits: float64 (steps + 1,), falling to 0."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffusion.errors import UserError
from diffusion.schedule import Schedule


def trailing(schedule: Schedule, steps: int) -> Tensor:
    """T, then evenly down (Lin et al. 2023): every step count starts from T."""
    return _whole(schedule.T * (1 - torch.arange(steps, dtype=torch.float64) / steps), schedule, steps)


def leading(schedule: Schedule, steps: int) -> Tensor:
    """1, then up by T // steps, whatever that leaves out before T (Song et al. 2020, DDIM)."""
    return torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (schedule.T // steps) + 1


def linspace(schedule: Schedule, steps: int) -> Tensor:
    """Evenly from T to 1."""
    return _whole(torch.linspace(schedule.T - 1, 0, steps, dtype=torch.float64), schedule, steps) + 1


def quadratic(schedule: Schedule, steps: int) -> Tensor:
    """sqrt(t) falls evenly: more steps near the data (DDIM, appendix D.2)."""
    return schedule.T * (1 - torch.arange(steps, dtype=torch.float64) / steps) ** 2


def log_snr(schedule: Schedule, steps: int) -> Tensor:
    """Evenly in log-SNR between T and 1 (Lu et al. 2022, DPM-Solver)."""
    first, last = _ends(schedule, "log_snr")
    return schedule.t_of_log_snr(torch.linspace(first, last, steps, dtype=torch.float64))


def karras(schedule: Schedule, steps: int, rho: float = 7.0) -> Tensor:
    """(sigma / alpha)^(1 / rho) falls evenly between T and 1 (Karras et al. 2022, Eq. 5)."""
    first, last = _ends(schedule, "karras")
    ends = torch.tensor([first, last], dtype=torch.float64).div(-2 * rho).exp()
    ramp = torch.lerp(ends[0], ends[1], torch.linspace(0, 1, steps, dtype=torch.float64))
    return schedule.t_of_log_snr(-2 * rho * ramp.log())


SPACINGS: dict[str, Callable[[Schedule, int], Tensor]] = {
    spacing.__name__: spacing for spacing in (trailing, leading, linspace, quadratic, log_snr, karras)
}


def visit(schedule: Schedule, times: str | Sequence[float], steps: int | None, beyond: bool) -> Tensor:
    """The times of a sampler, float64 (steps + 1,), strictly falling, the last of them 0.

    times: a name in SPACINGS, or the times themselves. steps: 1..T, None for all T, or for that list's own number.
    beyond: whether steps may exceed T. Raises UserError for what cannot be.
    """
    if not isinstance(times, str):
        return _listed(schedule, times, steps)
    if times not in SPACINGS:
        raise UserError(f"sampler.times={times}: expected {', '.join(SPACINGS)}, or a list of times that ends with 0")
    steps = schedule.T if steps is None else steps
    most = schedule.T if not beyond or times == "leading" else float("inf")
    if not 1 <= steps <= most:
        raise UserError(f"sampler.steps={steps}: expected 1 to {schedule.T}, the steps of the schedule")
    return torch.cat([SPACINGS[times](schedule, steps).cpu(), torch.zeros(1, dtype=torch.float64)])


def from_time(times: Tensor, t: float, T: int) -> Tensor:
    """t, and those of the times (steps + 1,) that are below it. Raises UserError where t is not in 0 < t <= T."""
    if not 0 < t <= T:
        raise UserError(f"task.t={t}: expected a time in steps, above 0 and at most T={T}")
    return torch.cat([times.new_tensor([t]), times[times < t]])


def with_jumps(times: Tensor, length: int, resamples: int) -> Tensor:
    """The times (steps + 1,) with every stretch of `length` steps walked `resamples` times: down, back up to its start,
    down again, ... (Lugmayr et al. 2022, RePaint, appendix B). The last stretch may be shorter.
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
        raise UserError(f"sampler.times={list(times)}: expected times that fall from at most {schedule.T} to 0")
    if steps not in (None, len(visited) - 1):
        raise UserError(f"sampler.steps={steps}: the list of times has {len(visited) - 1} steps; say steps=null")
    return visited


def _whole(times: Tensor, schedule: Schedule, steps: int) -> Tensor:
    """The nearest steps of the schedule, while it has enough of them."""
    return times.round() if steps <= schedule.T else times


def _ends(schedule: Schedule, name: str) -> tuple[float, float]:
    """log-SNR at T and at 1."""
    first, last = schedule.log_snr(torch.tensor([schedule.T, 1.0])).tolist()
    if first == float("-inf"):
        raise UserError(f"sampler.times={name}: log-SNR is infinite at T with zero_terminal_snr; use trailing")
    return first, last
