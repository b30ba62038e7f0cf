"""A progress bar for the whole run."""

import math
import shutil
import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, Timer
from tqdm import tqdm

from diffusion.training import lightning_counters
from diffusion.training.callbacks.validations import Validations
from diffusion.training.lightning_access import callback_of


class Progress(ProgressBar):
    """Shows steps done of all steps, time left, step/s, images/s, epoch, the metrics logged with `prog_bar=True`, and
    the training time until the next pictures if they are due by time.

    The run ends at the first of max_steps, max_epochs and max_time; with the last, the total is an estimate. Rates
    include validation and previews, so the time left is wall-clock time. On a terminal one line is updated; in a file
    or a pipe a line is written every half minute. Metrics are read only when a line is shown, so that the device does
    not have to synchronize in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._images, self._seconds = 0, 0.0  # of the run's earlier sessions
        self._session_images = 0
        self._start: float | None = None  # of this session; None outside of training

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Prints a separate line; on a terminal the progress bar is redrawn below it."""
        if self._enabled and self._start is not None and self._terminal:
            self._write("")
            sys.stderr.write("\r")
            sys.stderr.flush()
            self._shown = float("-inf")
        print(*args, **{"flush": True, **kwargs})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.monotonic()
        self._first_step = trainer.global_step
        self._epoch = trainer.current_epoch + 1  # a run resumed inside an epoch has no on_train_epoch_start
        self._terminal = sys.stderr.isatty()
        self._every = 0.25 if self._terminal else 30.0
        self._write = tqdm.status_printer(sys.stderr) if self._terminal else _print_line
        self._shown = float("-inf")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch = trainer.current_epoch + 1  # stored: current_epoch is one higher at the end of training

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._session_images += len(batch[0]) * trainer.world_size
        if time.monotonic() - self._shown >= self._every:
            self._show(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._start is not None and self._terminal:
            self._show(trainer, pl_module, "validating")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, pl_module)
        self._close()
        if self._enabled:
            _print_line(
                f"trained {trainer.global_step:,} steps, {self._images:,} images, {self._seconds / 60:.1f} minutes, "
                f"{self._images / max(self._seconds, 1e-9):,.0f} images/s"
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def state_dict(self) -> dict[str, Any]:
        return {"images": self._images + self._session_images, "seconds": self._seconds + self._elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._images, self._seconds = state_dict["images"], state_dict["seconds"]

    def line(self, trainer: Trainer, pl_module: LightningModule, note: str = "") -> str:
        """The current line, without control characters."""
        elapsed = max(self._elapsed(), 1e-9)
        # A narrow terminal cuts off the last parts first.
        parts = [note] if note else []
        parts += [f"{name} {value:.3g}" for name, value in trainer.progress_bar_metrics.items()]
        parts += [f"epoch {self._epoch}", f"{self._session_images / elapsed:,.0f} images/s"]
        parts += _next_pictures(trainer)
        total = self._total_steps(trainer, elapsed)
        return tqdm.format_meter(
            n=trainer.global_step,
            total=total,  # pyright: ignore[reportArgumentType] - None is an unknown total, which the stub lacks
            initial=self._first_step,
            elapsed=elapsed,
            unit=" step",
            # A wrapped line cannot be overwritten; 0 gives the numbers without a bar.
            ncols=shutil.get_terminal_size().columns - 1 if self._terminal else 0,
            postfix=", ".join(parts),
        )

    def _total_steps(self, trainer: Trainer, elapsed: float) -> float | None:
        total = trainer.estimated_stepping_batches
        timer = callback_of(trainer, Timer)
        seconds_left = timer.time_remaining() if timer else None
        if seconds_left is not None:
            rate = (trainer.global_step - self._first_step) / elapsed
            total = min(total, trainer.global_step + round(rate * max(seconds_left, 0)))
        return None if total == float("inf") else total

    def _show(self, trainer: Trainer, pl_module: LightningModule, note: str = "") -> None:
        if self._enabled:
            self._write(self.line(trainer, pl_module, note))
            self._shown = time.monotonic()

    def _elapsed(self) -> float:
        return 0.0 if self._start is None else time.monotonic() - self._start

    def _close(self) -> None:
        if self._start is not None and self._enabled and self._terminal:
            sys.stderr.write("\n")  # so that later output does not overwrite the last line
        totals = self.state_dict()
        self._images, self._seconds = totals["images"], totals["seconds"]
        self._session_images, self._start = 0, None


def _next_pictures(trainer: Trainer) -> list[str]:
    when = callback_of(trainer, Validations)
    seconds = when.seconds_left()[1] if when and not lightning_counters.run_ends(trainer) else math.inf
    return [f"pictures in {tqdm.format_interval(seconds)}"] if 0 < seconds < math.inf else []


def _print_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
