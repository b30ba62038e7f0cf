"""Checks before a weight update: the type of the images, and finite losses and gradients."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from diffusion.ground.errors import UserError
from diffusion.training.callbacks.checkpoints import Checkpoints
from diffusion.training.lightning_access import callback_of, model_of

log = logging.getLogger(__name__)


class RangeGuard(Callback):
    """Checks on the first batch that the model's space accepts the type of the images.

    The built-in data sets are checked in full when they are loaded; this is for a user's own data module.

    Raises: UserError with min, max and std for another type.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._looked = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self._looked and not (space := model_of(pl_module).space).takes(batch.x.dtype):
            x = batch.x.float()
            raise UserError(
                f"the images are {batch.x.dtype} with min {x.min():g}, max {x.max():g}, std {x.std():g}: "
                f"expected {space.stores}"
            )
        self._looked = True


class GradientGuard(Callback):
    """Clips gradients to the norm `clip` (0: no clipping), skips an optimizer step whose loss or gradient is not
    finite, and stops the run after `patience` skipped steps in a row. The norm is computed once for both.

    A skipped step has no gradient, so the optimizer leaves weights and moments unchanged. It still counts as a step, so
    the learning rate and the order of the data do not change. If one process skips, all do. In float16 the loss scaler
    handles gradients that overflow and skips the step itself.

    Raises: UserError with the step, the range of t and the newest checkpoint.
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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._losses: list[Tensor] = []  # of this step: several if gradients are accumulated
        self._t: list[Tensor] = []
        self._in_a_row: list[Tensor] = []  # t of each step skipped since the last successful one

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if len(self._in_a_row) >= self.patience:  # between two steps, so that a checkpoint can be saved
            raise UserError(self._message(trainer))
        self._t.append(batch.t)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        finite = torch.stack(self._losses).isfinite().all()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # a fused optimizer would unscale in its step, after the clipping
        norm = self._clipped(trainer, optimizer)
        if scaler is None:
            finite = finite & norm.isfinite()
        if trainer.strategy.reduce_boolean_decision(bool(finite)):  # the host waits for the device here
            self._in_a_row.clear()
        else:
            self._skip(trainer, optimizer)
        self._losses.clear()
        self._t.clear()

    def _clipped(self, trainer: Trainer, optimizer: Optimizer) -> Tensor:
        """Clips the gradients; returns their norm before clipping."""
        clip = self.clip or float("inf")
        if isinstance(trainer.model, FullyShardedDataParallel):
            return trainer.model.clip_grad_norm_(clip)  # each process has a shard of every gradient
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        return torch.nn.utils.clip_grad_norm_(weights, clip)

    def _skip(self, trainer: Trainer, optimizer: Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        self._in_a_row.append(torch.cat(self._t).cpu())
        self.skipped += 1
        if trainer.is_global_zero:
            loss = torch.stack(self._losses).mean()
            log.warning(
                "step %d is skipped: its loss (%g) or gradient is not finite (t in %s)",
                trainer.global_step + 1,
                loss,
                _range(self._in_a_row[-1:]),
            )

    def _message(self, trainer: Trainer) -> str:
        checkpoints = callback_of(trainer, Checkpoints)
        last = checkpoints.last if checkpoints else None
        return (
            f"{self.patience} steps in a row had a loss or gradient that is not finite, the last of them step "
            f"{trainer.global_step} with t in {_range(self._in_a_row)}; {self.skipped} were skipped in the whole run, "
            f"the last good checkpoint is {last or 'none yet'}: resume from it with a smaller optimizer.lr, or with "
            "trainer.precision=32-true"
        )


def _range(t: Sequence[Tensor]) -> str:
    values = torch.cat(list(t))
    return f"{values.min():g}..{values.max():g}"
