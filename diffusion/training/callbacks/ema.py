"""The moving averages of the weights, the first of which is what one validates, previews and samples with."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, _foreach_copy_, _foreach_lerp_  # pyright: ignore[reportPrivateImportUsage] (torch documents no other)

from diffusion.ground.errors import UserError
from diffusion.lit.module import LitDiffusion
from diffusion.optimization import snapshots
from diffusion.optimization.averages import Power, Profiles
from diffusion.training.strategies import SHARDED


class EMA(Callback):
    """Exponential moving averages of the module's `averaged_parameters`, in float32 on every rank, one for each of the
    profiles.

    After optimiser step n (counted from 1) `average += (1 - d_n) * (weights - average)`, with the profiles' d_n.
    Validation and previews see the first average: it is in the module from `on_validation_epoch_start` to
    `on_validation_end`, whatever the order of the callbacks. Everywhere else, and after training, the module has its
    raw weights. A checkpoint names them all: `state_dict` is raw, as always in Lightning, `ema_state_dict` is the first
    average, and `averages` holds the parameters of each by name (those of the first are stored once).

    batch_size: images per optimiser step, of all processes together; with 1, half-lives are in steps. folder: where
    snapshots of the averages go, if the profiles ask for them.

    Raises: UserError at the start of `fit` with a strategy that shards the weights, and where a run would go on from a
    checkpoint without the averages that must begin with the run.
    """

    def __init__(self, profiles: Profiles, batch_size: int = 1, folder: Path | None = None) -> None:
        self.profiles = profiles
        self.batch_size = batch_size
        self.folder = folder
        self.averages: dict[str, dict[str, Tensor]] = {}  # by name and by parameter
        self._step = 0  # the optimiser step that the averages have seen last
        self._raw: list[Tensor] | None = None  # the module's own weights while the average is in their place

    def setup(self, trainer: Trainer, pl_module: LitDiffusion, stage: str) -> None:
        if isinstance(trainer.strategy, SHARDED):
            raise UserError(
                "the moving average needs whole weights on every process, but this strategy shards them: "
                "use strategy=ddp, or train without an average by ema=decay ema.decay=0"
            )
        if stage != "fit":
            return
        # The module itself is moved only after this hook; an average left on the CPU would be copied to every step.
        device = trainer.strategy.root_device
        # In float32: steps of (1 - decay) would be rounded away in half precision.
        self.averages = {
            name: {key: weight.to(device, torch.float32, copy=True) for key, weight in _parameters(pl_module).items()}
            for name in self.profiles.names
        }

    def on_train_start(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        self._step = trainer.global_step
        self._weights = list(_parameters(pl_module).values())  # looked up once: there is a module tree to walk

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LitDiffusion, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # gradients are being accumulated: no optimiser step since
        self._step = trainer.global_step
        weights = [weight.float() for weight in self._weights]
        decays = self.profiles.decays(self._step, self.batch_size)
        for average, decay in zip(self.averages.values(), decays, strict=True):
            _foreach_lerp_(list(average.values()), weights, 1 - decay)
        if self.profiles.snapshots and self.folder and trainer.is_global_zero:
            self._take_snapshot(trainer, self.folder, self.profiles.snapshots)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        if self.averages:
            self._use_average(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        self._use_raw(pl_module)  # Lightning runs the callbacks that write checkpoints after all others

    def on_exception(self, trainer: Trainer, pl_module: LitDiffusion, exception: BaseException) -> None:
        self._use_raw(pl_module)  # what broke may have been the validation, and a checkpoint may be written next

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LitDiffusion, checkpoint: dict[str, Any]) -> None:
        if self.averages:  # none where it is saved by a trainer that never trained
            checkpoint["ema_state_dict"] = {**checkpoint["state_dict"], **self.first}
            checkpoint["averages"] = {name: dict(average) for name, average in self.averages.items()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LitDiffusion, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("averages", {})
        if isinstance(self.profiles, Power) and not saved.keys() >= self.averages.keys():
            raise UserError(
                f"the averages of ema=power begin with the run, but this checkpoint has {', '.join(saved) or 'none'} "
                f"and not {', '.join(self.averages)}: resume with the ema words the run began with, or start a new run"
            )
        # An average that was not kept so far starts from the one that was, or else from the weights.
        start = checkpoint.get("ema_state_dict", checkpoint["state_dict"])
        for name, average in self.averages.items():
            for key, tensor in average.items():
                tensor.copy_(saved.get(name, start)[key])

    @property
    def first(self) -> dict[str, Tensor]:
        """The average that validation, previews and `weights=ema` use, by parameter."""
        return next(iter(self.averages.values()))

    def _take_snapshot(self, trainer: Trainer, folder: Path, least: int) -> None:
        if snapshots.due(self._step, least):
            contents = snapshots.contents(self._step, self.averages)
            trainer.strategy.checkpoint_io.save_checkpoint(contents, snapshots.file(folder, self._step))
            snapshots.thin(folder, self._step, least)

    @torch.no_grad()
    def _use_average(self, pl_module: LitDiffusion) -> None:
        # Copied in place: the parameters keep their addresses, which captured graphs, flat buffers and optimisers may
        # have noted, and the average itself is not touched, whatever the module's precision and however this ends.
        weights = list(_parameters(pl_module).values())
        self._raw = [weight.clone() for weight in weights]
        _foreach_copy_(weights, list(self.first.values()))

    @torch.no_grad()
    def _use_raw(self, pl_module: LitDiffusion) -> None:
        if self._raw is not None:
            _foreach_copy_(list(_parameters(pl_module).values()), self._raw)
            self._raw = None


def _parameters(module: LitDiffusion) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in module.averaged_parameters()}
