"""Training objectives: the weighted distance of the network's output from its target."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import NonNegative, Positive, checked
from diffusion.denoiser import Denoiser, split_variance
from diffusion.ground.errors import UserError
from diffusion.losses.weighting import Simple, Weighting
from diffusion.process import LogLikelihood, Noised, discretized_log_likelihood, vlb_term
from diffusion.schedule import broadcast, precise


class Objective(nn.Module, ABC):
    """A noised batch -> the loss of each image. Its own parameters, such as a learnt weighting, are trained and stored
    with the network."""

    learns_variance = False  # whether the network has a second half of channels for the variance

    def forward(
        self,
        denoiser: Denoiser,
        noised: Noised,
        condition: Condition | None = None,
    ) -> Tensor:
        """(B,). noised: at t in 1..T; condition: of its images."""
        output = denoiser.output(noised.x_t, noised.t, condition)
        return self.of_output(denoiser, noised, *split_variance(output, noised.x_0.shape[1]))

    @abstractmethod
    def of_output(self, denoiser: Denoiser, noised: Noised, output: Tensor, mix: Tensor | None) -> Tensor:
        """The same, given the network's output and its variance mix, see `split_variance`."""


class Distance(Objective):
    """distance(sqrt(weight) * error of v), the mean over each image, then `weighting.of_loss`.

    The square root is inside, so that every distance has the unit of the weighting: with `Simple` it measures the error
    of eps, whatever the network predicts.
    """

    def __init__(self, weighting: Weighting):
        super().__init__()
        self.weighting = weighting

    @abstractmethod
    def distance(self, error: Tensor) -> Tensor:
        """Of each element, the shape of error."""

    def of_output(self, denoiser, noised, output, mix):
        x_0, alpha, sigma = noised.x_0, noised.alpha, noised.sigma
        target = denoiser.parametrization.target(x_0, noised.eps, broadcast(alpha, x_0), broadcast(sigma, x_0))
        _, c_out = denoiser.parametrization.coefficients(alpha, sigma)
        weight = self.weighting(denoiser.schedule, noised.t)
        scale = weight.sqrt() * c_out / sigma  # v error = c_out / sigma * output error
        loss = self.distance(broadcast(scale, x_0) * (target - output)).flatten(1).mean(1)
        return self.weighting.of_loss(loss, denoiser.schedule, noised.t)


class L2(Distance):
    """Squared error."""

    def distance(self, error):
        return error.square()


class L1(Distance):
    """Absolute error."""

    def distance(self, error):
        return error.abs()


@checked
class Huber(Distance):
    """Squared error / 2 below delta, linear above."""

    def __init__(self, weighting: Weighting, delta: Positive = 1.0):
        super().__init__(weighting)
        self.delta = delta

    def distance(self, error):
        return torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.delta)


@checked
class VLB(Objective):
    """L_vlb in nats per dimension, with the variance learned (Nichol & Dhariwal 2021, Eq. 4).

    T times a term, averaged over t, is the bound without the prior term, which has no parameters. log_likelihood: of
    the decoder, see `vlb_term`.
    """

    learns_variance = True

    def __init__(self, weighting: Weighting, log_likelihood: LogLikelihood = discretized_log_likelihood):
        super().__init__()
        self.log_likelihood = log_likelihood
        if not isinstance(weighting, Simple):
            raise UserError("loss=vlb has its own weights: use weighting=simple, or loss=hybrid")

    def of_output(self, denoiser, noised, output, mix):
        if mix is None:
            raise ValueError("L_vlb needs a network that predicts the variance")
        predicted = denoiser.x_0_of(output, noised.x_t, noised.alpha, noised.sigma)
        s, t = (noised.t - 1).clamp(min=0), noised.t
        arguments = noised.x_0, predicted, noised.x_t, s, t, mix, self.log_likelihood
        return denoiser.schedule.T * vlb_term(denoiser.schedule, *arguments)


@checked
class Hybrid(L2):
    """L_simple + scale * L_vlb, where L_vlb trains the variance only (Nichol & Dhariwal 2021, Eq. 16). log_likelihood:
    of the decoder."""

    learns_variance = True

    def __init__(
        self,
        weighting: Weighting,
        scale: NonNegative = 0.001,
        log_likelihood: LogLikelihood = discretized_log_likelihood,
    ):
        super().__init__(weighting)
        self.scale = scale
        self.bound = VLB(Simple(), log_likelihood)

    def of_output(self, denoiser, noised, output, mix):
        simple = super().of_output(denoiser, noised, output, mix)
        return simple + self.scale * self.bound.of_output(denoiser, noised, output.detach(), mix)


def by_quarter(loss: Tensor, t: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """Sum of the losses and count of images in each quarter of 1..T: (4,), (4,), `precise`. loss, t: (B,)."""
    quarter, loss = ((t - 1) * 4 / T).long().clamp(max=3), precise(loss)
    zeros = loss.new_zeros(4)
    return zeros.index_add(0, quarter, loss), zeros.index_add(0, quarter, torch.ones_like(loss))
