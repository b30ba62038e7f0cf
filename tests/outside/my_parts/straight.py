"""A schedule: alpha_bar falls along a straight line."""

import torch
from torch import Tensor

from diffusion.config.value_types import Count, OpenFraction, checked
from diffusion.schedule import Schedule, precise


@checked
class Straight(Schedule):
    """alpha_bar_t = 1 - (1 - last) t / T. A closed form needs no table: the function and its inverse are all."""

    def __init__(self, T: Count = 1000, last: OpenFraction = 0.001):
        super().__init__()
        self.T, self.fall = T, 1 - last

    def log_alpha_bar(self, t: Tensor | float) -> Tensor:
        return torch.log1p(-self.fall / self.T * precise(t))

    def t_of_log_alpha_bar(self, log_alpha_bar: Tensor) -> Tensor:
        return (-torch.expm1(precise(log_alpha_bar)) / self.fall * self.T).clamp(0, self.T)
