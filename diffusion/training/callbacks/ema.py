"""Moving averages of the weights. Validation, previews and sampling use the first of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from diffusion.ground.errors import UserError
from diffusion.optimization import snapshots
from diffusion.optimization.averages import Power, Profiles
from diffusion.training.strategies import SHARDED


@runtime_checkable
class Averaged(Protocol):
    """A module that names the parameters of which averages are kept."""

    def averaged_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


class EMA(Callback):
    """Exponential moving averages of the module's `averaged_parameters`, in float32 on every rank, one per profile.

    After optimizer step n (counted from 1) `average += (1 - d_n) * (weights - average)`, with the profiles' d_n.
    Validation and previews see the first average: it is in the module from `on_validation_epoch_start` to
    `on_validation_end`, whatever the order of the callbacks. Everywhere else, and after training, the module has its
    raw weights. In a checkpoint `state_dict` is raw, as always in Lightning, `ema_state_dict` is the first average, and
    `averages` holds the parameters of each by name (those of the first are stored once).

    batch_size: images per optimizer step over all processes; with 1, half-lives are in steps. folder: of the
    averages' snapshots, if the profiles keep any.

    Raises: UserError at the start of `fit` with a strategy that shards the weights, and on resuming from a checkpoint
    without the averages that must begin with the run.
    """

    def __init__(self, profiles: Profiles, batch_size: int = 1, folder: Path | None = None) -> None:
        self.profiles = profiles
        self.batch_size = batch_size
        self.folder = folder
        self.averages: dict[str, dict[str, Tensor]] = {}  # by name and by parameter
        self._step = 0  # the last optimizer step in the averages
        self._raw: list[Tensor] | None = None  # the raw weights while the module has the average

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if isinstance(trainer.strategy, SHARDED):
            raise UserError(
                "the moving average needs whole weights on every process, but this strategy shards them: "
                "use strategy=ddp, or train without an average with ema=decay ema.decay=0"
            )
        if stage != "fit":
            return
        # The module is moved to the device only after this hook; an average on the CPU would be copied in every step.
        device = trainer.strategy.root_device
        # float32: updates by (1 - decay) would be rounded away in half precision.
        self.averages = {
            name: {key: weight.to(device, torch.float32, copy=True) for key, weight in _parameters(pl_module).items()}
            for name in self.profiles.names
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        self._weights = list(_parameters(pl_module).values())  # once: the lookup walks the module tree

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # gradients are being accumulated: no optimizer step since
        self._step = trainer.global_step
        weights = [weight.float() for weight in self._weights]
        decays = self.profiles.decays(self._step, self.batch_size)
        for average, decay in zip(self.averages.values(), decays, strict=True):
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage] - torch has no public name for it
                list(average.values()), weights, 1 - decay
            )
        if self.profiles.snapshots and self.folder and trainer.is_global_zero:
            self._take_snapshot(trainer, self.folder, self.profiles.snapshots)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.averages:
            self._use_average(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._use_raw(pl_module)  # Lightning runs the callbacks that write checkpoints after all others

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._use_raw(pl_module)  # it may be raised in a validation, and a checkpoint may be written next

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.averages:  # none if the trainer never trained
            checkpoint["ema_state_dict"] = {**checkpoint["state_dict"], **self.first}
            checkpoint["averages"] = {name: dict(average) for name, average in self.averages.items()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("averages", {})
        if isinstance(self.profiles, Power) and not saved.keys() >= self.averages.keys():
            raise UserError(
                f"the averages of ema=power begin with the run, but this checkpoint has {', '.join(saved) or 'none'} "
                f"and not {', '.join(self.averages)}: resume with the run's original ema options, or start a new run"
            )
        # A new average starts from the saved first average, or else from the weights.
        start = checkpoint.get("ema_state_dict", checkpoint["state_dict"])
        for name, average in self.averages.items():
            for key, tensor in average.items():
                tensor.copy_(saved.get(name, start)[key])

    @property
    def first(self) -> dict[str, Tensor]:
        """The average used by validation, previews and `weights=ema`, by parameter."""
        return next(iter(self.averages.values()))

    def _take_snapshot(self, trainer: Trainer, folder: Path, least: int) -> None:
        if snapshots.due(self._step, least):
            contents = snapshots.contents(self._step, self.averages)
            trainer.strategy.checkpoint_io.save_checkpoint(contents, snapshots.file(folder, self._step))
            snapshots.thin(folder, self._step, least)

    @torch.no_grad()
    def _use_average(self, pl_module: LightningModule) -> None:
        # In place: captured graphs, flat buffers and optimizers may hold the parameters' addresses. The average itself
        # is not modified, whatever the module's precision.
        weights = list(_parameters(pl_module).values())
        self._raw = [weight.clone() for weight in weights]
        _copy(weights, list(self.first.values()))

    @torch.no_grad()
    def _use_raw(self, pl_module: LightningModule) -> None:
        if self._raw is not None:
            _copy(list(_parameters(pl_module).values()), self._raw)
            self._raw = None


def _parameters(module: LightningModule) -> dict[str, Tensor]:
    if not isinstance(module, Averaged):
        raise TypeError(f"{type(module).__name__} has no averaged_parameters")
    return {name: weight.detach() for name, weight in module.averaged_parameters()}


def _copy(weights: list[Tensor], values: list[Tensor]) -> None:
    torch._foreach_copy_(weights, values)  # pyright: ignore[reportPrivateImportUsage] - torch has no public name for it
