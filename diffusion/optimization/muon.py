"""Muon: momentum whose update of each matrix is orthogonalised (Jordan et al. 2024), for filters too."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.config.value_types import Betas, Count, NonNegative, ProperFraction, checked
from diffusion.optimization.fitted_rate import Rate
from diffusion.optimization.lr_schedule import LearningRate
from diffusion.optimization.optimizers import Optimizer

_LEAST = 16  # rows and columns of a matrix that is worth it
_COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the quintic iteration, which is steepest at 0
_RMS = 0.2  # of an update of AdamW, about (Liu et al. 2025, arXiv:2502.16982): one lr serves both


@checked
@dataclass(frozen=True)
class Muon(LearningRate, Optimizer):
    """Muon for matrices and for filters, flattened to (out, in * height * width), where both sides are at least 16;
    AdamW for all other parameters. Updates are scaled to the size of AdamW's, so that both share lr.

    momentum: of Muon, with Nesterov's correction. iterations: of Newton-Schulz. betas: of AdamW.
    """

    momentum: ProperFraction = 0.95
    iterations: Count = 5
    betas: Betas = (0.9, 0.999)
    weight_decay: NonNegative = 0.0

    def build(
        self, parameters: Iterable[nn.Parameter], undecayed: Iterable[nn.Parameter] = ()
    ) -> tuple["MuonAdamW", Rate]:
        parameters = [*parameters]
        matrices = [each for each in parameters if _is_matrix(each)]
        others = [each for each in parameters if not _is_matrix(each)]
        groups = [
            {"params": matrices, "momentum": self.momentum, "iterations": self.iterations},
            {"params": others, "betas": tuple(self.betas)},
            {"params": [*undecayed], "betas": tuple(self.betas), "weight_decay": 0.0},
        ]
        optimizer = MuonAdamW([group for group in groups if group["params"]], self.lr, self.weight_decay)
        return optimizer, Rate(optimizer, self)


class MuonAdamW(torch.optim.Optimizer):
    """One optimizer, since Lightning steps one: Muon for groups with `momentum`, AdamW for those with `betas`."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, weight_decay: float):
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in (each for each in group["params"] if each.grad is not None):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                update = self._muon if "momentum" in group else self._adamw
                parameter.sub_(update(parameter, parameter.grad, group).view_as(parameter), alpha=group["lr"])
        return loss

    def _muon(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["average"] = torch.zeros_like(gradient)
        average = state["average"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(average, group["momentum"]).flatten(1)
        return orthogonalised(update, group["iterations"]) * (_RMS * max(update.shape) ** 0.5)

    def _adamw(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "average": torch.zeros_like(gradient), "squares": torch.zeros_like(gradient)}
        state["step"] += 1
        first, second = group["betas"]
        average = state["average"].lerp_(gradient, 1 - first) / (1 - first ** state["step"])
        squares = state["squares"].lerp_(gradient.square(), 1 - second) / (1 - second ** state["step"])
        return average / (squares.sqrt() + 1e-8)


def orthogonalised(matrix: Tensor, iterations: int) -> Tensor:
    """About U V^T of the singular value decomposition U S V^T: singular values of 0.7 to 1.2. matrix: (rows, columns).

    Newton-Schulz: X <- a X + b (X X^T) X + c (X X^T)^2 X, from X of Frobenius norm 1.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and min(parameter.flatten(1).shape) >= _LEAST
