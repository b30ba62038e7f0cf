"""Checkpoints: periodic, before a stop by signal, and after an exception."""

import copy
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from diffusion.config.value_types import Count, Positive, checked
from diffusion.ground.errors import UserError
from diffusion.ground.files import give_name, remove_remains
from diffusion.training import lightning_counters
from diffusion.training.cadence import Cadence
from diffusion.training.lightning_access import callbacks_of, data_of, model_of
from diffusion.training.signal_flags import Signals
from diffusion.training.strategies import SHARDED

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WholeStep:
    """The state of a run after an optimizer step, other than weights and optimizer: restored when an exception
    interrupts the next step.

    batches: begun in the whole run. position: state of the data module. timesteps: state of the timestep sampler.
    """

    step: int
    batches: int
    position: dict[str, Any]
    timesteps: Mapping[str, Any]

    @classmethod
    def of(cls, trainer: Trainer) -> "WholeStep":
        data = data_of(trainer)
        return cls(
            step=trainer.global_step,
            batches=lightning_counters.batches_begun(trainer),
            position=data.state_dict() if data is not None else {},
            timesteps=copy.deepcopy(model_of(trainer.lightning_module).timesteps.state_dict()),
        )

    def go_back(self, trainer: Trainer) -> None:
        """Restores this state. Batches begun since count as not seen: they reached no optimizer step."""
        lightning_counters.forget_batches(trainer, lightning_counters.batches_begun(trainer) - self.batches)
        if (data := data_of(trainer)) is not None:
            data.load_state_dict(self.position)
        model_of(trainer.lightning_module).timesteps.load_state_dict(self.timesteps)


@checked
class Checkpoints(Checkpoint):
    """Writes folder/step_0001234.ckpt at the given intervals, after each validation, on SIGUSR1, before a stop and
    after an exception. `last.ckpt` is another name of the newest, `best.ckpt` of the one with the lowest `monitor`
    so far. No name contains a `=`.

    Only whole optimizer steps are saved, so a resumed run repeats and skips none. SIGINT and SIGTERM end the run after
    the step in which they arrive, or after the last validation; a second SIGINT ends it at once. Lightning runs
    callbacks of this base class last, after the moving averages of the step are updated.

    Args:
        folder:          of the checkpoints.
        every_n_steps:   optimizer steps between two, or None.
        every_n_minutes: minutes between two, or None.
        every_n_epochs:  epochs between two, or None.
        keep:            how many of the newest to keep, besides the best.
        monitor:         the metric that best.ckpt follows, such as val/mind of callbacks=quality; lower is better. A
                         validation that does not measure it leaves best.ckpt as it is.
    """

    validated_on: Any = None
    """Identifies the images of val/loss, in plain values, on rank 0: losses on other images are not compared."""

    def __init__(
        self,
        folder: Path | str,
        every_n_steps: Count | None = None,
        every_n_minutes: Positive | None = 10.0,
        every_n_epochs: Count | None = None,
        keep: Count = 2,
        monitor: str = "val/loss",
    ):
        self.folder = Path(folder)
        self.cadence = Cadence(every_n_steps, every_n_minutes, every_n_epochs)
        self.keep = keep
        self.monitor = monitor
        self.best = float("inf")
        self.last: Path | None = None
        """The newest checkpoint written in this session, or the one it was resumed from."""
        self.signals = Signals()
        self._whole = WholeStep(step=-1, batches=0, position={}, timesteps={})
        self._saved_step = self._tried_step = -1  # tried: or not saved because the disk is full
        self._saved_at = time.monotonic()
        self._due = self._stopping = False  # at the end of the current step

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "monitor": self.monitor, "validated_on": self.validated_on}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("monitor", "val/loss") != self.monitor:
            log.warning("best.ckpt now follows checkpoints.monitor=%s", self.monitor)
            return
        before, now = state_dict.get("validated_on"), self.validated_on
        if before is None or now is None or before == now:  # None: earlier versions, and ranks other than 0
            self.best = state_dict["best"]
        else:
            log.warning("the validation images are not those of the best checkpoint so far: best.ckpt is chosen again")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            remove_remains(self.folder)
        if trainer.ckpt_path:
            self.last = Path(trainer.ckpt_path)
        self._saved_step = self._tried_step = trainer.global_step
        self._whole = WholeStep.of(trainer)
        self.signals.listen()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        lightning_counters.align_logged_step(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._whole.step:
            return  # gradients are being accumulated: they are in no checkpoint
        self._whole = WholeStep.of(trainer)
        self._decide(trainer)
        self._due |= self.cadence.counts(trainer.global_step, lightning_counters.epochs_ended(trainer))
        if not lightning_counters.validation_follows(trainer):
            self._act(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or lightning_counters.is_last_step(trainer):
            return  # a run saved at its last step counts as finished: that step is saved only after its validation
        with lightning_counters.owing_validation(trainer):
            self._act(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking:
            self._decide(trainer)
            # the validation of the last step is completed
            if self._stopping and not lightning_counters.is_last_step(trainer):
                _stop()  # saved in on_exception, when the raw weights are back in the module

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        value, best = self._monitored(trainer), self.best
        self.best = min(value, best)
        if not self._save(trainer, ("last", "best") if value < best else ("last",)):
            self.best = best

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self._saved_step != trainer.global_step:
            raise UserError(
                f"steps {self._saved_step + 1} to {trainer.global_step} are in no checkpoint: {self.folder} is full; "
                f"the newest is {self.last or 'none'}: free disk space, then resume from it with resume=auto"
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.signals.at_once or self._tried_step == self._whole.step:
            return
        if trainer.global_step != self._whole.step or (isinstance(trainer.strategy, SHARDED) and not self._stopping):
            log.warning("not saved: the run failed inside a step; the newest checkpoint is %s", self.last)
            return
        if trainer.validating and lightning_counters.is_last_step(trainer):
            log.warning("not saved: the last validation failed; resume=auto repeats it, from %s", self.last)
            return
        if trainer.validating:
            with lightning_counters.owing_validation(trainer):
                saved = self._save(trainer, together=self._stopping)
        else:
            self._whole.go_back(trainer)
            saved = self._save(trainer, together=self._stopping)
        if saved and not self._stopping:
            log.warning("the run failed; its last whole step, %d, is saved: %s", trainer.global_step, self.last)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.signals.ignore()

    def _monitored(self, trainer: Trainer) -> float:
        """The latest value of the monitored metric, infinite before it has one. Raises UserError if nothing logs it."""
        metrics = trainer.callback_metrics
        if self.monitor in metrics:
            return metrics[self.monitor].item()
        if self.monitor not in (getattr(each, "logs", None) for each in callbacks_of(trainer)):
            known = ", ".join(sorted(name for name in metrics if name.startswith("val/")))
            raise UserError(f"checkpoints.monitor={self.monitor}: a validation does not measure it, but {known}")
        return float("inf")

    def _decide(self, trainer: Trainer) -> None:
        """Whether to save or to stop; all processes agree, whichever of them received the signal."""
        late = time.monotonic() - self._saved_at > self.cadence.seconds
        stop, save = self.signals.stop, self.signals.save() or late
        if trainer.world_size > 1:
            flags = torch.tensor([save, stop], dtype=torch.int32, device=trainer.strategy.root_device)
            save, stop = trainer.strategy.reduce(flags, reduce_op="sum").bool().tolist()
        self._due |= save
        self._stopping |= stop

    def _act(self, trainer: Trainer) -> None:
        if self._due:
            self._save(trainer)
        if self._stopping:
            _stop()

    def _save(self, trainer: Trainer, names: Sequence[str] = ("last",), together: bool = True) -> bool:
        """Saves this step, under those names as well. Returns whether it is on the disk, on rank 0; others: False.

        together: all processes take part; otherwise this one saves alone, without waiting for the others.
        """
        path = self.folder / f"step_{trainer.global_step:07d}.ckpt"
        before = _stamp(path)
        if together:
            trainer.save_checkpoint(path, weights_only=False)
        else:
            trainer.strategy.save_checkpoint(lightning_counters.contents(trainer), path)
        self._due, self._saved_at, self._tried_step = False, time.monotonic(), trainer.global_step
        if not trainer.is_global_zero or _stamp(path) == before:
            return False
        self.last, self._saved_step = path, trainer.global_step
        for name in names:
            give_name(path, self.folder / f"{name}.ckpt")
        for old in sorted(self.folder.glob("step_*.ckpt"), key=_stamp)[: -self.keep]:
            old.unlink()
        return True


def _stop() -> NoReturn:
    """Ends the run as Lightning expects it: it calls `on_exception` and `teardown`, then exits."""
    raise KeyboardInterrupt


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0
