"""The moving average of the weights, which is what one validates, previews and samples with."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor

from diffusion.errors import UserError

_SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


class EMA(WeightAveraging):
    """Exponential moving average of the parameters, kept in float32 on every rank.

    After optimiser step n (counted from 1) `average += (1 - d_n) * (weights - average)` with

        d_n = min(decay, (1 + n) / (10 + n)),

    so that a short run is not averaged with its own random start. Validation and previews see the average: it is in
    the module from `on_validation_epoch_start` to `on_validation_end`, whatever the order of the callbacks. Everywhere
    else, and after training, the module has its raw weights. A checkpoint names both: `state_dict` is raw, as always in
    Lightning, and `ema_state_dict` is the average.

    Raises: UserError where decay is outside [0, 1), and at the start of `fit` with a strategy that shards the weights.
    """

    def __init__(self, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"ema.decay={decay} is not in [0, 1): 0.9999 suits long runs, 0.999 short ones")
        super().__init__(use_buffers=False)
        self.decay = decay
        self._raw: list[Tensor] | None = None  # the module's own weights while the average is in their place

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if isinstance(trainer.strategy, _SHARDED):
            raise UserError(
                "the moving average needs whole weights on every process, but this strategy shards them: "
                "use strategy=ddp, or train without the average by ema.decay=0"
            )
        # The module itself is moved only after this hook; an average left on the CPU would be copied to every step.
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            for average in self._average_model.parameters():
                average.data = average.data.float()  # steps of (1 - decay) would be rounded away in half precision

    def decay_at(self, step: int) -> float:
        """d_n of optimiser step n."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._latest_update_step:
            return  # gradients are being accumulated: no optimiser step since
        self._latest_update_step = trainer.global_step
        # AveragedModel.update_parameters would ask the device for its own count twice a step, and make the host wait.
        weights = [weight.detach().float() for weight in pl_module.parameters()]
        torch._foreach_lerp_(self._averages(), weights, 1 - self.decay_at(trainer.global_step))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the raw weights. Lightning would overwrite them here, and the last checkpoint, written after this
        hook, would hold the average twice: a run resumed from it would go on from other weights than it stopped with.
        """

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._average_model is not None:
            self._use_average(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the average in place: other callbacks, and the module, have yet to run this hook."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._use_raw(pl_module)  # Lightning runs the callbacks that write checkpoints after all others

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._use_raw(pl_module)  # what broke may have been the validation, and a checkpoint may be written next

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is None:
            return  # saved by a trainer that never trained: there is no average
        average = self._average_model.module
        for averaged, current in zip(average.buffers(), pl_module.buffers(), strict=True):
            averaged.copy_(current)  # only parameters are averaged
        checkpoint["ema_state_dict"] = average.state_dict()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None:
            # A checkpoint trained without an average, or with none yet, starts one from its weights.
            self._average_model.module.load_state_dict(checkpoint.get("ema_state_dict", checkpoint["state_dict"]))

    def _averages(self) -> list[Tensor]:
        return [average.detach() for average in self._average_model.parameters()]

    @torch.no_grad()
    def _use_average(self, pl_module: LightningModule) -> None:
        # Copied in place: the parameters keep their addresses, which captured graphs, flat buffers and optimisers may
        # have noted, and the average itself is not touched, whatever the module's precision and however this ends.
        weights = [weight.detach() for weight in pl_module.parameters()]
        self._raw = [weight.clone() for weight in weights]
        torch._foreach_copy_(weights, self._averages())

    @torch.no_grad()
    def _use_raw(self, pl_module: LightningModule) -> None:
        if self._raw is not None:
            torch._foreach_copy_([weight.detach() for weight in pl_module.parameters()], self._raw)
            self._raw = None
