"""What one training step minimises: which t, and the distance of the network's output from its target."""

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from diffusion.process import q_sample
from diffusion.schedule import broadcast


def uniform_steps(u: Tensor, T: int) -> Tensor:
    """t ~ Uniform{1, ..., T} from u ~ Uniform[0, 1), both (B,) (Algorithm 1, line 3)."""
    return (u * T).floor() + 1


def mse(denoiser: Denoiser, x_0: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None) -> Tensor:
    """|target - output(x_t, t)|^2, the mean over each image: (B,). For eps it is L_simple (Eq. 14).

    x_0, eps: (B, C, H, W); t: (B,), in steps 1..T; y: int64 (B,) labels or None.
    """
    x_t = q_sample(denoiser.schedule, x_0, t, eps)
    alpha, sigma = (broadcast(scale, x_0) for scale in denoiser.schedule(t))
    target = denoiser.parametrization.target(x_0, eps, alpha, sigma)
    return (target - denoiser.output(x_t, t, y)).square().flatten(1).mean(1)


def by_quarter(loss: Tensor, t: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """Sum of the losses and count of images in each quarter of 1..T: float64 (4,), (4,). loss, t: (B,)."""
    quarter = ((t - 1) * 4 / T).long().clamp(max=3)
    sums = torch.zeros(4, dtype=torch.float64, device=loss.device)
    return sums.index_add(0, quarter, loss.double()), quarter.bincount(minlength=4).double()
