"""The gap between the loss and its minimum on the training images."""

import time

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from diffusion.config.value_types import Count, File, Natural
from diffusion.data.base import Data
from diffusion.evaluation.floor import Floor
from diffusion.evaluation.training_reference import Reference, Settings, reference
from diffusion.ground.launch import say
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.lit.training_inputs import TrainingPair
from diffusion.losses.objective import L2, Distance, by_quarter


class LossFloor(Callback):
    """Measures the floor of L_simple on the training images when a run begins, see `evaluation.floor`. At each
    validation it logs, with the averaged weights and in L_simple for any training loss:

    - `train/gap`, and `train/gap_t1of4` ... by quarters of t: the loss above the floor, on n training images at fixed t
      and noise. It is the squared distance from the exact denoiser of the training set, whose gap is 0. Memorising
      reduces it: at low noise a network that generalises has a gap.
    - `val/excess`: val/loss minus the mean of the floor. It includes generalisation: the validation images are not in
      the set of the floor, and at low noise the floor of a finite set is 0.

    The floor is drawn as a line in the plot of the loss against t. It is cached by its inputs: data, space, schedule
    and the keys here. A conditional network is compared with the exact denoiser under the same condition; `flip` counts
    each image twice. Rank 0 measures. A run on a few batches (overfit_batches), or on data that is not a `Data`, has no
    floor.

    Args:
        draws: number of x_t drawn for the floor.
        n: number of training images for train/gap; 0 disables the callback.
        rows: maximum number of random training images that represent a larger set. The floor is then too low, since
            nearer images are missing, and train/gap, which needs all images, is not logged; None: all images.
        cache: the cache folder; None: that of decoded images, ~/.cache/diffusion.
    """

    runs_network = True

    def __init__(self, draws: Count = 512, n: Natural = 256, rows: Count | None = 100_000, cache: File | None = None):
        self.settings = Settings(draws, n, rows)
        self.cache = cache
        self.reference: Reference | None = None  # on rank 0
        self._batch_size = 0
        self._sums: list[Tensor] = []  # (2,), sum and number of the losses of each batch of this process

    @property
    def floor(self) -> Floor | None:
        """In L_simple; None if it was not measured."""
        return self.reference.floor if self.reference else None

    def on_fit_start(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        data = getattr(trainer, "datamodule", None)
        if trainer.is_global_zero and isinstance(data, Data) and not getattr(trainer, "overfit_batches", 0):
            start = time.perf_counter()
            self.reference = reference(pl_module, data, self.settings, self.cache, trainer.strategy.root_device)
            self._batch_size = data.local_batch_size
            say(f"{_text(self.reference, pl_module)} ({time.perf_counter() - start:.1f} s)")

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        self._sums.clear()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LitDiffusion, outputs: Tensor, batch: TrainingPair, batch_idx: int
    ) -> None:
        self._sums.append(torch.stack([outputs.float(), torch.ones_like(outputs).float()]).sum(1))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        total, count = trainer.strategy.reduce(torch.stack(self._sums).sum(0), reduce_op="sum")
        if trainer.sanity_checking or self.reference is None:
            return
        values = {"val/excess": total / count - self.reference.floor.mean()[0]}
        if self.reference.means is not None:
            with trainer.precision_plugin.forward_context():
                t, gap = self.reference.gap(pl_module.denoiser, self._batch_size, pl_module.device)
            sums, counts = by_quarter(gap, t, pl_module.denoiser.schedule.T)
            values["train/gap"] = sums.sum() / counts.sum()
            values |= {f"train/gap_t{quarter}of4": each for quarter, each in enumerate(sums / counts, start=1)}
        for name, value in values.items():
            pl_module.log(name, value.float(), rank_zero_only=True)


def _text(reference: Reference, model: LitDiffusion) -> str:
    mean, error = reference.floor.mean()
    lines = [f"floor of L_simple on the training images: {mean:.3g}, standard error {error:.1g}"]
    if reference.means is None:
        lines.append("from a part of them, so too low and without train/gap: callbacks.floor.rows=null uses all")
    if isinstance(model.objective, Distance) and not isinstance(model.objective, L2):
        name = type(model.objective).__name__
        lines.append(f"loss {name} is not a squared error, so its minimum is not at train/gap = 0")
    return "; ".join(lines)
