"""How far the loss is above the smallest that it can be on the training images."""

import time

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from diffusion.config.values import Count, File, Natural
from diffusion.data.base import Data
from diffusion.evaluation.floor import Floor
from diffusion.evaluation.reference import Reference, Settings, reference
from diffusion.ground.launch import say
from diffusion.lit.module import LitDiffusion
from diffusion.lit.pairs import TrainingPair
from diffusion.losses.objective import L2, Distance, by_quarter


class LossFloor(Callback):
    """Measures the floor of L_simple on the training images when a run begins, see `evaluation.floor`, and logs at each
    validation, with the averaged weights, in L_simple whatever is trained:

    - `train/gap`, and `train/gap_t1of4` ... by quarters of t: what the network loses on top of the floor, on n training
      images at fixed t and noise. It is the squared distance from the exact denoiser of the training set, which alone
      has none. Memorising brings it down: at low noise a network that generalises has a gap.
    - `val/excess`: val/loss less the mean of the floor. It includes generalisation: the validation images are not among
      those that the floor knows, and at low noise the floor of a finite set is 0.

    The floor itself is a line in the picture of the loss against t. It is kept in the cache, by what it depends on:
    data, space, schedule and the keys here. A network that is given a condition is compared with the exact denoiser
    that is given it; `flip` counts each image twice. Rank 0 measures. A run on a few batches alone (overfit_batches)
    has no floor, nor has data that is no `Data`.

    Args:
        draws: of x_t, for the floor.
        n: training images of train/gap; 0: nothing of all this.
        rows: of a larger training set so many random images stand for it: the floor is then too low, by what nearer
            images would add, and train/gap, which needs all, is left out; None: all images, whatever it costs.
        cache: the folder where it is kept; None: where decoded images are, ~/.cache/diffusion.
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
        """In L_simple; None where it was not measured."""
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
        lines.append("of a part of them, which is too low, and no train/gap: callbacks.floor.rows=null takes all")
    if isinstance(model.objective, Distance) and not isinstance(model.objective, L2):
        lines.append(f"loss {type(model.objective).__name__} is no squared error, and does not lead to train/gap = 0")
    return "; ".join(lines)
