"""A weighting with parameters: the loss of each band of t is learnt."""

import torch
from torch import Tensor, nn

from diffusion.config.value_types import Count, checked
from diffusion.losses.weighting import Weighting
from diffusion.schedule import Schedule


@checked
class Bands(Weighting, nn.Module):
    """exp(-u) loss + u, with a number u for each band of t: at its optimum the log of the band's loss. As an nn.Module
    it is trained and stored with the network."""

    def __init__(self, bands: Count = 4):
        super().__init__()
        self.log_loss = nn.Parameter(torch.zeros(bands))

    def of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.ones_like(log_snr)

    def of_loss(self, loss: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
        bands = len(self.log_loss)
        u = self.log_loss[(t * bands / schedule.T).long().clamp(max=bands - 1)].to(loss)
        return (-u).exp() * loss + u
