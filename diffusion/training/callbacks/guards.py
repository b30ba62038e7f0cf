"""What must not reach the weights: values that do not fit the space, and numbers that are none."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from diffusion.ground.errors import UserError
from diffusion.lit.module import LitDiffusion
from diffusion.training.callbacks import of_trainer
from diffusion.training.callbacks.checkpoints import Checkpoints

log = logging.getLogger(__name__)


class RangeGuard(Callback):
    """Looks once, at the first batch, whether the images are of a type that the model's space takes.

    Our own data sets are checked as a whole; this is for a data module of the user's own.

    Raises: UserError with min, max and std where they are not.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        self._looked = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LitDiffusion, batch: Any, batch_idx: int) -> None:
        if not self._looked and not pl_module.space.takes(batch.x.dtype):
            x = batch.x.float()
            raise UserError(
                f"the images are {batch.x.dtype} with min {x.min():g}, max {x.max():g}, std {x.std():g}: "
                f"expected {pl_module.space.stores}"
            )
        self._looked = True


class GradientGuard(Callback):
    """Clips gradients to the norm `clip` (0: does not), skips an optimiser step whose loss or gradient is not finite,
    and stops the run after `patience` of these in a row. Both need the norm, which is found once.

    A skipped step has no gradient, so the optimiser leaves weights and moments as they are; it counts as a step all the
    same, so that the learning rate and the order of the data are those of any other run. Every process skips where one
    of them must. In float16 a gradient that overflows belongs to the loss scaling, which skips the step itself.

    Raises: UserError that names step, range of t and the newest checkpoint.
    """

    def __init__(self, clip: float = 1.0, patience: int = 5):
        self.clip = clip
        self.patience = patience
        self.skipped = 0
        """Steps skipped in the whole run."""

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = state_dict["skipped"]

    def on_train_start(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        self._losses: list[Tensor] = []  # of this step: more than one where gradients are accumulated
        self._t: list[Tensor] = []
        self._in_a_row: list[Tensor] = []  # t of each step skipped since the last that was not

    def on_train_batch_start(self, trainer: Trainer, pl_module: LitDiffusion, batch: Any, batch_idx: int) -> None:
        if len(self._in_a_row) >= self.patience:  # between two steps: what is whole can be saved
            raise UserError(self._words(trainer))
        self._t.append(batch.t)

    def on_before_backward(self, trainer: Trainer, pl_module: LitDiffusion, loss: Tensor) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LitDiffusion, optimizer: Optimizer) -> None:
        finite = torch.stack(self._losses).isfinite().all()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # a fused optimiser would do so in its step, after the clipping
        norm = self._clipped(trainer, optimizer)
        if scaler is None:
            finite = finite & norm.isfinite()
        if trainer.strategy.reduce_boolean_decision(bool(finite)):  # here the host waits for the device
            self._in_a_row.clear()
        else:
            self._skip(trainer, optimizer)
        self._losses.clear()
        self._t.clear()

    def _clipped(self, trainer: Trainer, optimizer: Optimizer) -> Tensor:
        """The norm that the gradients had before they were clipped."""
        clip = self.clip or float("inf")
        if isinstance(trainer.model, FullyShardedDataParallel):
            return trainer.model.clip_grad_norm_(clip)  # each process has a part of every gradient
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        return torch.nn.utils.clip_grad_norm_(weights, clip)

    def _skip(self, trainer: Trainer, optimizer: Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        self._in_a_row.append(torch.cat(self._t).cpu())
        self.skipped += 1
        if trainer.is_global_zero:
            loss = torch.stack(self._losses).mean()
            log.warning(
                "step %d is skipped: loss %g, or its gradient, is not finite (t in %s)",
                trainer.global_step + 1,
                loss,
                _range(self._in_a_row[-1:]),
            )

    def _words(self, trainer: Trainer) -> str:
        checkpoints = of_trainer.callback(trainer, Checkpoints)
        last = None if checkpoints is None else checkpoints.last
        return (
            f"{self.patience} steps in a row had a loss or gradient that is not finite, the last of them step "
            f"{trainer.global_step} with t in {_range(self._in_a_row)}; {self.skipped} were skipped in the whole run, "
            f"the last good checkpoint is {last or 'none yet'}: go on from it with a smaller optimizer.lr, or with "
            "trainer.precision=32-true"
        )


def _range(t: Sequence[Tensor]) -> str:
    values = torch.cat(list(t))
    return f"{values.min():g}..{values.max():g}"
