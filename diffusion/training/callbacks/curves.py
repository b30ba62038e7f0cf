"""Curves of a run: the schedule at the start, the loss against t at validations."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F

from diffusion.config.value_types import Count
from diffusion.evaluation import plots
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.lit.training_inputs import TrainingPair
from diffusion.training.callbacks.floor import LossFloor
from diffusion.training.callbacks.pictures import Pictures, publish
from diffusion.training.callbacks.validations import Validations
from diffusion.training.lightning_access import callback_of, model_of

_DRAWS = 2**16  # of t


class ScheduleCurve(Callback):
    """Draws alpha_bar, log-SNR, and the training density and weight of each t, into `schedule.png` in the run folder
    when a run begins; a resumed run keeps the file."""

    def __init__(self, run_folder: Path | str) -> None:
        self.folder = Path(run_folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0 and trainer.is_global_zero:
            publish(trainer, lambda: {"schedule": self.draw(model_of(pl_module))})

    @torch.no_grad()  # a schedule or weighting may be learnt
    def draw(self, model: LitDiffusion) -> Path:
        schedule = model.denoiser.schedule
        t, _ = model.timesteps.draw(model.seed, torch.arange(_DRAWS), schedule)
        weighting = getattr(model.objective, "weighting", None)  # L_vlb has its own weights
        return plots.write_figure(self.folder / "schedule.png", plots.draw_training(schedule, t, weighting))


class LossCurve(Pictures):
    """Draws the validation losses of the images of all processes against t, into `loss_epoch_0003_step_0001234.png`,
    with the floor from `LossFloor`, if that callback is used."""

    def __init__(self, samples: Path | str, validations: Validations | None = None, keep: Count | None = 50) -> None:
        super().__init__(samples, validations, keep)
        self._losses: list[Tensor] = []  # (B, 2): t and loss, of this process's batches

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._losses.clear()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: TrainingPair,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._losses.append(torch.stack([batch.t, outputs.float()], dim=1))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._losses = [_of_all_processes(trainer, torch.cat(self._losses))]  # collective: on every rank
        super().on_validation_epoch_end(trainer, pl_module)

    def draw(self, pl_module: LitDiffusion, when: str) -> dict[str, Path]:
        t, losses = self._losses[0].cpu().unbind(1)
        measured = callback_of(pl_module.trainer, LossFloor)
        found = None if measured is None else measured.floor
        floor = None if found is None else (found.t, found.value)
        figure = plots.draw_losses(t, losses, pl_module.denoiser.schedule.T, floor=floor)
        return {"val/loss_against_t": plots.write_figure(self.folder / f"loss_{when}.png", figure)}


def _of_all_processes(trainer: Trainer, rows: Tensor) -> Tensor:
    """The rows (n, 2) of all processes, whose n may differ. Padding has t = 0, which no row has."""
    longest = trainer.strategy.reduce(torch.tensor(len(rows), device=rows.device), reduce_op="max")
    padded = F.pad(rows, (0, 0, 0, int(longest) - len(rows)))
    together = trainer.strategy.all_gather(padded).reshape(-1, 2)
    return together[together[:, 0] > 0]
