"""Noise schedules: t -> (alpha_t, sigma_t), for t counted in steps from 0 (data) to T (noise).

A schedule is stored as the float64 table of log alpha_bar_k for k = 0..T, alpha_bar_0 = 1, and interpolated linearly
in between: exactly the VP-SDE whose beta(t) is constant within a step. The discrete table is also the continuous
schedule, so Algorithm 2 and continuous-time solvers share it, and integers need no offset.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.config.value_types import Count, NonNegative, Positive, PositiveFraction, checked
from diffusion.ground.errors import Notice, UserError


def precise(t: Tensor | float) -> Tensor:
    """t as a tensor in the widest float of its device: float64 on CPU and CUDA; float32 elsewhere, since MPS and others
    have no wider one."""
    if not isinstance(t, Tensor):
        return torch.as_tensor(t, dtype=torch.float64)
    return t.to(widest(t.device))


def widest(device: torch.device) -> torch.dtype:
    """The widest float that a device has."""
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32


def broadcast(scale: Tensor, x: Tensor) -> Tensor:
    """A scalar or (B,) `scale` shaped to multiply x (B, C, H, W), in the dtype of x. A scalar on the host stays there,
    which every operation accepts: a copy would synchronise. Anything else is moved to the device of x."""
    if scale.ndim == 0 and scale.is_cpu:
        return scale.to(x.dtype)
    scale = scale.to(x)
    return scale if scale.ndim == 0 else scale.reshape(-1, *[1] * (x.ndim - 1))


class Schedule(nn.Module, ABC):
    """Variance-preserving noise schedule: alpha_t^2 + sigma_t^2 = 1, alpha_0 = 1.

    Times may have any shape and any real value in 0..T; results are `precise`, of that shape and on that device. The
    times of a sampler are on the host: its arithmetic is float64 on every machine, and no step waits for the device. A
    schedule has no entries in the state dict, and keeps its precision when the enclosing module is cast to half.
    """

    T: int

    @abstractmethod
    def log_alpha_bar(self, t: Tensor | float) -> Tensor:
        """log of alpha_bar_t, the product of (1 - beta) up to t: 0 at t = 0, decreasing."""

    @abstractmethod
    def t_of_log_alpha_bar(self, log_alpha_bar: Tensor) -> Tensor:
        """The inverse of `log_alpha_bar`, in 0..T."""

    def forward(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """alpha_t = sqrt(alpha_bar_t) and sigma_t = sqrt(1 - alpha_bar_t), both of the shape of t."""
        log_alpha_bar = self.log_alpha_bar(t)
        return (log_alpha_bar / 2).exp(), (-torch.expm1(log_alpha_bar)).sqrt()

    def beta(self, s: Tensor | float, t: Tensor | float) -> Tensor:
        """Variance of q(x_t | x_s), 1 - alpha_bar_t / alpha_bar_s, for s < t; the paper's beta_t at s = t - 1."""
        return -torch.expm1(self.log_alpha_bar(t) - self.log_alpha_bar(s))

    def log_snr(self, t: Tensor | float) -> Tensor:
        """log(alpha_t^2 / sigma_t^2); infinite at t = 0."""
        log_alpha_bar = self.log_alpha_bar(t)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of `log_snr`; values out of range give the nearer of 0 and T."""
        return self.t_of_log_alpha_bar(F.logsigmoid(precise(log_snr)))

    def with_zero_terminal_snr(self) -> "Schedule":
        """The same schedule with alpha shifted and scaled so that alpha_T = 0: x_T is pure noise (Lin et al. 2023). It
        cannot be combined with eps prediction."""
        return ZeroTerminalSNR(self)


@checked
class Table(Schedule):
    """The schedule given by the betas of steps 1..T.

    betas: (T,), each in (0, 1); the last may be 1. Raises UserError otherwise; warns if alpha_bar_T > 1e-2, since the
    reverse process starts from pure noise.
    """

    def __init__(self, betas: Tensor | Sequence[Positive]):
        super().__init__()
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.shape[:1] in ((), (0,)):
            raise UserError("a schedule needs the betas of at least 1 step")
        if not ((betas[:-1] < 1).all() and (betas > 0).all() and betas[-1] <= 1):
            raise UserError(
                f"a schedule needs every beta in (0, 1), got {betas.min():.4g} to {betas.max():.4g}: lower its betas"
            )
        self.T = len(betas)
        self.table = F.pad(torch.log1p(-betas).cumsum(0), (1, 0))  # for times on the host
        self._on_device = self.table  # for times on the device of the module
        alpha_bar_T = self.table[-1].exp().item()
        if alpha_bar_T > 1e-2:
            warnings.warn(
                f"alpha_bar_T = {alpha_bar_T:.3g} is above 0.01: x_T is not pure noise, samples will be biased; "
                "raise the betas or T",
                Notice,
                stacklevel=3,
            )

    @property
    def betas(self) -> Tensor:
        """beta_k of steps k = 1..T, float64 (T,)."""
        return -torch.expm1(self.table.diff())

    def _apply(self, fn: Callable, recurse: bool = True):
        # Follows the module to its device but keeps its precision: in half, alpha_bar rounds to 1 for small t.
        device = fn(torch.empty(0)).device
        self._on_device = self.table.to(device, widest(device))
        return super()._apply(fn, recurse)

    def _table_for(self, t: Tensor) -> Tensor:
        return self.table if t.is_cpu else self._on_device

    def log_alpha_bar(self, t: Tensor | float) -> Tensor:
        t = precise(t)
        table, k = self._table_for(t), t.floor().clamp(0, self.T - 1)
        below, above = table[k.long()], table[k.long() + 1]
        # alpha_bar_T may be 0, and 0 * log(0) is nan: at integer t the table is used directly.
        return torch.where(t == k, below, below + (above - below) * (t - k))

    def t_of_log_alpha_bar(self, log_alpha_bar: Tensor) -> Tensor:
        table = self._table_for(log_alpha_bar)
        value = precise(log_alpha_bar).maximum(table[-1]).clamp(max=0)
        k = torch.searchsorted(-table, -value, right=True).clamp(1, self.T) - 1
        below, above = table[k], table[k + 1]
        return k + torch.where(value == above, 1.0, (value - below) / (above - below))

    def with_zero_terminal_snr(self) -> "Table":
        """Keeps alpha_bar_1 as well as alpha_bar_0 (Lin et al. 2023, Algorithm 1)."""
        root = (self.table / 2).exp()
        root = (root - root[-1]) * root[1] / (root[1] - root[-1])
        root[0] = 1
        return Table(1 - (root[1:] / root[:-1]) ** 2)


class ZeroTerminalSNR(Schedule):
    """alpha'_t = (alpha_t - alpha_T) / (1 - alpha_T) of a schedule in closed form."""

    def __init__(self, schedule: Schedule):
        super().__init__()
        self.schedule = schedule
        self.T = schedule.T
        self.alpha_T = schedule(schedule.T)[0].item()

    def log_alpha_bar(self, t: Tensor | float) -> Tensor:
        lost = torch.expm1(self.schedule.log_alpha_bar(t) / 2)  # alpha_t - 1, exact near t = 0
        return 2 * torch.log1p((lost / (1 - self.alpha_T)).clamp(min=-1))

    def t_of_log_alpha_bar(self, log_alpha_bar: Tensor) -> Tensor:
        lost = torch.expm1(precise(log_alpha_bar) / 2) * (1 - self.alpha_T)
        return self.schedule.t_of_log_alpha_bar(2 * torch.log1p(lost))


@checked
class VP(Schedule):
    """The VP-SDE in closed form (Song et al. 2021): beta(u) rises linearly over u = t / T, and
    log alpha_bar(u) = -beta_min u - (beta_max - beta_min) u^2 / 2.
    """

    def __init__(self, T: Count = 1000, beta_min: Positive = 0.1, beta_max: Positive = 20.0):
        super().__init__()
        if not beta_min < beta_max:
            raise UserError(f"schedule.beta_min={beta_min}, beta_max={beta_max}: expected beta_min < beta_max")
        self.T = T
        self.beta_min, self.rise = beta_min, beta_max - beta_min

    def log_alpha_bar(self, t: Tensor | float) -> Tensor:
        u = precise(t) / self.T
        return -u * (self.beta_min + self.rise / 2 * u)

    def t_of_log_alpha_bar(self, log_alpha_bar: Tensor) -> Tensor:
        spent = -precise(log_alpha_bar)
        u = 2 * spent / (self.beta_min + (self.beta_min**2 + 2 * self.rise * spent).sqrt())
        return (u * self.T).clamp(max=self.T)


@checked
class ContinuousCosine(Schedule):
    """The cosine schedule in closed form: alpha_t = cos(u a), u = t / T, with the angle a at which log-SNR has fallen
    to log_snr_min (Nichol & Dhariwal 2021 without their offset; cut as in Salimans & Ho 2022).
    """

    def __init__(self, T: Count = 1000, log_snr_min: float = -15.0):
        super().__init__()
        self.T = T
        self.angle = math.atan(math.exp(-log_snr_min / 2))

    def log_alpha_bar(self, t: Tensor | float) -> Tensor:
        u = precise(t) / self.T
        return torch.log1p(-(torch.sin(u * self.angle) ** 2))

    def t_of_log_alpha_bar(self, log_alpha_bar: Tensor) -> Tensor:
        log_alpha_bar = precise(log_alpha_bar)
        angle = torch.atan2((-torch.expm1(log_alpha_bar)).sqrt(), (log_alpha_bar / 2).exp())
        return (angle / self.angle * self.T).clamp(max=self.T)


def _resampled(betas: Tensor, T: int) -> Table:
    """The curve of a 1000-step table resampled to T steps: x_T stays as noisy, and every beta is below 1 for any T."""
    if len(betas) == T:
        return Table(betas)
    k = torch.linspace(0, len(betas), T + 1, dtype=torch.float64)
    return Table(-torch.expm1(Table(betas).log_alpha_bar(k).diff()))


def _of_curve(alpha_bar: Callable[[Tensor], Tensor], T: int, beta_max: float) -> Table:
    """The table of a curve alpha_bar(u), u = t / T in 0..1, its betas clipped at beta_max (Nichol & Dhariwal 2021)."""
    values = alpha_bar(torch.linspace(0, 1, T + 1, dtype=torch.float64))
    return Table((1 - values[1:] / values[:-1]).clamp(max=beta_max))


@checked
def linear(T: Count = 1000, beta_start: Positive = 1e-4, beta_end: Positive = 0.02) -> Table:
    """Ho et al. 2020: beta rises linearly. The betas are those of 1000 steps; another T resamples the same curve."""
    return _resampled(torch.linspace(beta_start, beta_end, 1000, dtype=torch.float64), T)


@checked
def scaled_linear(T: Count = 1000, beta_start: Positive = 0.00085, beta_end: Positive = 0.012) -> Table:
    """The schedule of Stable Diffusion (Rombach et al. 2022): `quadratic` with other betas."""
    return quadratic(T, beta_start, beta_end)


@checked
def quadratic(T: Count = 1000, beta_start: Positive = 1e-4, beta_end: Positive = 0.02) -> Table:
    """sqrt(beta) rises linearly (Song et al. 2020, DDIM). The betas are those of 1000 steps, as in `linear`."""
    roots = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), 1000, dtype=torch.float64)
    return _resampled(roots**2, T)


@checked
def cosine(T: Count = 1000, s: NonNegative = 0.008, beta_max: PositiveFraction = 0.999) -> Table:
    """alpha_bar(u) = f(u) / f(0), f(u) = cos^2((u + s) / (1 + s) * pi / 2) (Nichol & Dhariwal 2021, Eq. 17)."""
    return _of_curve(lambda u: torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2, T, beta_max)


@checked
def sigmoid(
    T: Count = 1000, start: float = -3.0, end: float = 3.0, tau: Positive = 1.0, beta_max: PositiveFraction = 0.999
) -> Table:
    """alpha_bar(u) falls as a sigmoid from start to end at temperature tau (Jabri et al. 2022, Algorithm 1)."""

    def alpha_bar(u: Tensor) -> Tensor:
        last = torch.sigmoid(torch.tensor(end / tau, dtype=torch.float64))
        return last - torch.sigmoid((u * (end - start) + start) / tau)

    return _of_curve(alpha_bar, T, beta_max)


@checked
def laplace(T: Count = 1000, mean: float = 0.0, scale: Positive = 0.5, beta_max: PositiveFraction = 0.999) -> Table:
    """log-SNR at a uniform u is Laplace distributed (Hang et al. 2024), mean + scale sgn(u - 1/2) log(1 - 2 |u - 1/2|):
    most steps are near log-SNR = mean."""

    def alpha_bar(u: Tensor) -> Tensor:
        return torch.sigmoid(mean + scale * torch.sign(u - 0.5) * torch.log(1 - 2 * (u - 0.5).abs()))

    return _of_curve(alpha_bar, T, beta_max)
