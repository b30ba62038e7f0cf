"""Denoiser: network + schedule + parametrization, (x_t, t, condition) -> Prediction."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from diffusion.conditioners.condition import Condition
from diffusion.ground.errors import UserError
from diffusion.networks.kernels.choice import HasKernels
from diffusion.parametrization import Eps, Parametrization
from diffusion.schedule import Schedule, broadcast, precise


@dataclass(frozen=True)
class Prediction:
    """The prediction of a denoiser for x_t. x_0 is stored; eps, v and the score are computed from it, so that they are
    consistent with a clipped x_0.

    x_0, x_t: (B, C, H, W); t, alpha, sigma: `precise`, scalar or (B,). variance_mix: (B, C, H, W), the position
    of a learned variance of the reverse step between the posterior variance (0) and beta_t (1), else None. nfe: number
    of network evaluations per image.
    """

    x_0: Tensor
    x_t: Tensor
    t: Tensor
    alpha: Tensor
    sigma: Tensor
    variance_mix: Tensor | None = None
    nfe: int = 1

    @property
    def eps(self) -> Tensor:
        """(x_t - alpha_t x_0) / sigma_t; t > 0."""
        return (self.x_t - broadcast(self.alpha, self.x_t) * self.x_0) / broadcast(self.sigma, self.x_t)

    @property
    def v(self) -> Tensor:
        """alpha_t eps - sigma_t x_0 (Salimans & Ho 2022)."""
        return broadcast(self.alpha, self.x_t) * self.eps - broadcast(self.sigma, self.x_t) * self.x_0

    @property
    def score(self) -> Tensor:
        """grad log q(x_t) = -eps / sigma_t."""
        return -self.eps / broadcast(self.sigma, self.x_t)


class Denoise(Protocol):
    """Interface of a network with its schedule, and of every wrapper around it: guidance, clipping, a task."""

    schedule: Schedule

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """x_t: (B, C, H, W); t: scalar or (B,), in steps 0..T; condition: of B images, None for an empty one."""
        ...


class Denoiser(HasKernels):
    """A network that is called with the t of the paper. `kernels` applies to its network and to a guiding network.

    Raises UserError for eps prediction with zero terminal SNR (Lin et al. 2023).
    """

    def __init__(self, network: nn.Module, schedule: Schedule, parametrization: Parametrization):
        super().__init__()
        if isinstance(parametrization, Eps) and schedule(schedule.T)[0] == 0:
            raise UserError("zero_terminal_snr: x_T has no signal, so eps does not determine x_0: use prediction=v")
        self.network = network
        self.schedule = schedule
        self.parametrization = parametrization

    def output(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The bare network output (B, C, H, W), or (B, 2C, H, W) with learned variance; arguments as in `forward`."""
        shown, x = self.parametrization, x_t
        time = x_t.new_zeros(x_t.shape[0], dtype=torch.float32)
        time = time + broadcast(shown.clock(t, self.schedule), time)
        if shown.scales_input:
            x = broadcast(shown.input_scale(*self.schedule(t)), x_t) * x_t
        # Only the network input is cast: x_t and the time keep their precision when the module is cast to half.
        precision = next(self.network.parameters(), x).dtype
        return self.network(x.to(precision), time, condition).to(x_t.dtype)

    def forward(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """As in `Denoise`."""
        t = precise(t)
        alpha, sigma = self.schedule(t)
        output, variance_mix = split_variance(self.output(x_t, t, condition), x_t.shape[1])
        return Prediction(self.x_0_of(output, x_t, alpha, sigma), x_t, t, alpha, sigma, variance_mix)

    def x_0_of(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The x_0 that an output implies, c_skip x_t + c_out output: (B, C, H, W). alpha, sigma: scalar or (B,)."""
        c_skip, c_out = self.parametrization.coefficients(alpha, sigma)
        return broadcast(c_skip, x_t) * x_t + broadcast(c_out, x_t) * output


class Frozen:
    """A second, trained denoiser, such as a guide or a teacher, next to the one that is trained or sampled.

    It is no submodule of any module, so it is neither trained nor averaged nor stored; it moves to the device of x_t.
    """

    def __init__(self, denoiser: Denoiser):
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.schedule = denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        return self.denoiser.to(x_t.device)(x_t, t, condition)


def split_variance(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """The output for the mean, and for the variance as a mix in about 0..1 if there are channels for it, else None."""
    if output.shape[1] == channels:
        return output, None
    mean, variance = output.split(channels, dim=1)
    return mean, (variance + 1) / 2
