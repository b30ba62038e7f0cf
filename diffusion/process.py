"""The diffusion process of Ho et al. 2020 as functions of a schedule, independent of any network."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.schedule import Schedule, broadcast

LogLikelihood = Callable[[Tensor, Tensor, Tensor], Tensor]  # of x_0, given mean and standard deviation, in nats


def q_sample(schedule: Schedule, x_0: Tensor, t: Tensor | float, eps: Tensor) -> Tensor:
    """x_t ~ q(x_t | x_0) = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (Eq. 4).

    x_0, eps: (B, C, H, W); t: scalar or (B,), in steps 0..T.
    """
    alpha, sigma = schedule(t)
    return broadcast(alpha, x_0) * x_0 + broadcast(sigma, x_0) * eps


@dataclass(frozen=True)
class Noised:
    """A training batch after the forward process, with all schedule values that its loss needs.

    x_0, eps, x_t: (B, C, H, W); t, in steps, alpha_t and sigma_t: (B,).
    """

    x_0: Tensor
    eps: Tensor
    t: Tensor
    alpha: Tensor
    sigma: Tensor
    x_t: Tensor

    @classmethod
    def of(cls, schedule: Schedule, x_0: Tensor, t: Tensor, eps: Tensor) -> "Noised":
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (Algorithm 1, line 5)."""
        alpha, sigma = schedule(t)
        x_t = broadcast(alpha, x_0) * x_0 + broadcast(sigma, x_0) * eps
        return cls(x_0, eps, t, alpha, sigma, x_t)


def q_step(schedule: Schedule, x_s: Tensor, s: Tensor | float, t: Tensor | float, eps: Tensor) -> Tensor:
    """x_t ~ q(x_t | x_s) = sqrt(1 - beta) x_s + sqrt(beta) eps, s < t (Eq. 2, which is the case s = t - 1).

    x_s, eps: (B, C, H, W); s, t: scalar or (B,), in steps 0..T.
    """
    beta = schedule.beta(s, t)
    return broadcast((1 - beta).sqrt(), x_s) * x_s + broadcast(beta.sqrt(), x_s) * eps


def q_posterior(
    schedule: Schedule, x_0: Tensor, x_t: Tensor, s: Tensor | float, t: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_s | x_t, x_0) for any s < t (Eqs. 6-7, which are the case s = t - 1).

        mean     = sqrt(alpha_bar_s) beta / (1 - alpha_bar_t) x_0
                   + sqrt(1 - beta) (1 - alpha_bar_s) / (1 - alpha_bar_t) x_t,    beta = 1 - alpha_bar_t / alpha_bar_s
        variance = (1 - alpha_bar_s) / (1 - alpha_bar_t) beta

    x_0, x_t: (B, C, H, W); s, t: scalar or (B,), in steps, 0 <= s < t <= T.
    Returns the mean (B, C, H, W) and the variance, broadcastable to it, 0 at s = 0. Raises ValueError if s >= t, for
    tensors on the host.
    """
    s, t = torch.as_tensor(s), torch.as_tensor(t)
    if s.is_cpu and (s >= t).any():  # on a device the check would synchronise
        raise ValueError(f"the reverse process goes from t down to s, got s={s.tolist()}, t={t.tolist()}")
    alpha_s, sigma_s = schedule(s)
    _, sigma_t = schedule(t)
    beta = schedule.beta(s, t)
    of_x_0 = alpha_s * beta / sigma_t**2
    of_x_t = (1 - beta).sqrt() * sigma_s**2 / sigma_t**2
    variance = sigma_s**2 / sigma_t**2 * beta
    return broadcast(of_x_0, x_0) * x_0 + broadcast(of_x_t, x_t) * x_t, broadcast(variance, x_t)


def reverse_variance(
    schedule: Schedule, s: Tensor | float, t: Tensor | float, mix: Tensor | float, x: Tensor
) -> Tensor:
    """Variance of the reverse step from t to s, between the posterior's (mix = 0) and beta_t (mix = 1):
    exp(mix log beta + (1 - mix) log posterior variance) (Nichol & Dhariwal 2021, Eq. 15); 0 at s = 0 for every mix.

    s, t: scalar or (B,); mix: a number or a tensor of the shape of x. The result broadcasts to x (B, C, H, W).
    """
    s = torch.as_tensor(s)
    beta = schedule.beta(s, t)
    _, sigma_s = schedule(s)
    _, sigma_t = schedule(t)
    # log(posterior variance / beta), kept finite where s = 0: there the variance is 0 in any case
    log_ratio = torch.where(sigma_s > 0, 2 * (sigma_s / sigma_t).log(), 0.0)
    scale = torch.where(sigma_s > 0, beta, 0.0)
    return broadcast(scale, x) * (broadcast(log_ratio, x) * (1 - mix)).exp()


def gaussian_kl(mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(other_mean, other_variance)) of each element, in nats; arguments that broadcast."""
    ratio = variance / other_variance
    return (ratio - 1 - ratio.log() + (mean - other_mean).square() / other_variance) / 2


def discretized_log_likelihood(x_0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log of the mass of N(mean, std^2) within 1/255 of each 8-bit value, in nats (Ho et al. 2020, Eq. 13).

    x_0: images in [-1, 1], from uint8; the outermost values include the tails. Arguments that broadcast.
    """
    above = torch.where(x_0 > 0.999, torch.inf, (x_0 + 1 / 255 - mean) / std)
    below = torch.where(x_0 < -0.999, -torch.inf, (x_0 - 1 / 255 - mean) / std)
    # In the upper tail both CDF values round to 1: use the mass of the mirrored interval there.
    above, below = torch.where(below > 0, -below, above), torch.where(below > 0, -above, below)
    # ndtr is (1 + erf) / 2 in float32 and loses the tail; erfc keeps it.
    below, above = (torch.special.erfc(-edge / math.sqrt(2)) / 2 for edge in (below, above))
    return (above - below).clamp(min=1e-12).log()


def gaussian_log_likelihood(x_0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log of the density of N(mean, std^2) at x_0, in nats; arguments that broadcast."""
    return -((x_0 - mean) / std).square() / 2 - std.log() - math.log(2 * math.pi) / 2


def bound_variance(schedule: Schedule, s: Tensor | float, t: Tensor | float, mix: Tensor | float, x: Tensor) -> Tensor:
    """`reverse_variance` for likelihoods, which need a positive value at s = 0: there the posterior variance is that of
    the next step up (Nichol & Dhariwal 2021, section 3.1), or beta_t if t = T and there is none."""
    s, t = torch.as_tensor(s), torch.as_tensor(t)
    beta = schedule.beta(s, t)
    first, next_t = torch.where(s > 0, s, t), torch.where(s > 0, t, (2 * t - s).clamp(max=schedule.T))
    small = torch.where(
        broadcast(first < next_t, x) > 0, reverse_variance(schedule, first, next_t, 0, x), broadcast(beta, x)
    )
    return (mix * broadcast(beta, x).log() + (1 - mix) * small.log()).exp()


def vlb_term(
    schedule: Schedule,
    x_0: Tensor,
    predicted: Tensor,
    x_t: Tensor,
    s: Tensor | float,
    t: Tensor | float,
    mix: Tensor | float,
    log_likelihood: LogLikelihood = discretized_log_likelihood,
) -> Tensor:
    """One term of the variational bound, in nats per dimension (Ho et al. 2020, Eq. 5): for s > 0 the divergence of the
    reverse step from q(x_s | x_t, x_0), for s = 0 the decoder's -log p(x_0 | x_t).

    x_0, x_t, predicted (the x_0 of the network): (B, C, H, W); s, t: scalar or (B,); mix: as in `reverse_variance`;
    log_likelihood: (x_0, mean, std) -> log-likelihood of the decoder. Returns (B,).
    """
    s = torch.as_tensor(s)
    mean, _ = q_posterior(schedule, predicted, x_t, s, t)
    variance = bound_variance(schedule, s, t, mix, x_t)
    true_mean, _ = q_posterior(schedule, x_0, x_t, s, t)
    kl = gaussian_kl(true_mean, bound_variance(schedule, s, t, 0, x_t), mean, variance)
    decoder = -log_likelihood(x_0, mean, variance.sqrt())
    return torch.where(broadcast(s, x_t) > 0, kl, decoder).flatten(1).mean(1)
