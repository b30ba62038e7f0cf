"""One line of progress for the whole run."""

import math
import shutil
import sys
import time
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar, Timer
from tqdm import tqdm

from diffusion.lit.module import LitDiffusion
from diffusion.training.callbacks import loops, of_trainer
from diffusion.training.callbacks.validations import Validations


class Progress(ProgressBar):
    """Steps done of all steps, time left, step/s, images/s, epoch, the metrics logged with `prog_bar=True`, and the
    time of training until the next pictures, where it is the clock that brings them.

    The run ends at the nearest of max_steps, max_epochs and max_time; with the last, the total is an estimate. Rates
    include validation and previews, so that the time left is what the clock will show. On a terminal one line is kept
    up to date; into a file or a pipe a line is written every half minute. Metrics are read only when a line is shown:
    in between, nothing waits for the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._images, self._seconds = 0, 0.0  # of the run's earlier sessions
        self._session_images, self._start = 0, None  # of this one; without a start there is none

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """A line of its own; on a terminal the line of progress comes again below it."""
        if self._enabled and self._start is not None and self._terminal:
            self._write("")
            sys.stderr.write("\r")
            sys.stderr.flush()
            self._shown = float("-inf")
        print(*args, **{"flush": True, **kwargs})

    def on_train_start(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        self._start = time.monotonic()
        self._first_step = trainer.global_step
        self._epoch = trainer.current_epoch + 1  # resumed in the middle of one, there is no start of an epoch
        self._terminal = sys.stderr.isatty()
        self._every = 0.25 if self._terminal else 30.0
        self._write = tqdm.status_printer(sys.stderr) if self._terminal else _print_line
        self._shown = float("-inf")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        self._epoch = trainer.current_epoch + 1  # the trainer's own is one further at the end of training

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LitDiffusion, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._session_images += len(batch[0]) * trainer.world_size
        if time.monotonic() - self._shown >= self._every:
            self._show(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        if self._start is not None and self._terminal:
            self._show(trainer, pl_module, "validating")

    def on_train_end(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        self._show(trainer, pl_module)
        self._close()
        if self._enabled:
            _print_line(
                f"trained {trainer.global_step:,} steps, {self._images:,} images, {self._seconds / 60:.1f} minutes, "
                f"{self._images / max(self._seconds, 1e-9):,.0f} images/s"
            )

    def on_exception(self, trainer: Trainer, pl_module: LitDiffusion, exception: BaseException) -> None:
        self._close()

    def state_dict(self) -> dict[str, Any]:
        return {"images": self._images + self._session_images, "seconds": self._seconds + self._elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._images, self._seconds = state_dict["images"], state_dict["seconds"]

    def line(self, trainer: Trainer, pl_module: LitDiffusion, note: str = "") -> str:
        """The line as of now, without control characters."""
        elapsed = max(self._elapsed(), 1e-9)
        # The last words are the first to be cut off in a narrow terminal.
        words = [note] if note else []
        words += [f"{name} {value:.3g}" for name, value in trainer.progress_bar_metrics.items()]
        words += [f"epoch {self._epoch}", f"{self._session_images / elapsed:,.0f} images/s"]
        words += _next_pictures(trainer)
        return tqdm.format_meter(
            n=trainer.global_step,
            total=self._total_steps(trainer, elapsed),
            initial=self._first_step,
            elapsed=elapsed,
            unit=" step",
            # A wrapped line cannot be overwritten; 0 gives the numbers without a bar.
            ncols=shutil.get_terminal_size().columns - 1 if self._terminal else 0,
            postfix=", ".join(words),
        )

    def _total_steps(self, trainer: Trainer, elapsed: float) -> float:
        """inf where nothing limits the run."""
        total = trainer.estimated_stepping_batches
        timer = of_trainer.callback(trainer, Timer)
        seconds_left = timer.time_remaining() if timer else None
        if seconds_left is not None:
            rate = (trainer.global_step - self._first_step) / elapsed
            total = min(total, trainer.global_step + round(rate * max(seconds_left, 0)))
        return total

    def _show(self, trainer: Trainer, pl_module: LitDiffusion, note: str = "") -> None:
        if self._enabled:
            self._write(self.line(trainer, pl_module, note))
            self._shown = time.monotonic()

    def _elapsed(self) -> float:
        return 0.0 if self._start is None else time.monotonic() - self._start

    def _close(self) -> None:
        if self._start is not None and self._enabled and self._terminal:
            sys.stderr.write("\n")  # what is printed next does not overwrite the last state
        totals = self.state_dict()
        self._images, self._seconds = totals["images"], totals["seconds"]
        self._session_images, self._start = 0, None


def _next_pictures(trainer: Trainer) -> list[str]:
    when = of_trainer.callback(trainer, Validations)
    seconds = when.seconds_left()[1] if when and not loops.run_ends(trainer) else math.inf
    return [f"pictures in {tqdm.format_interval(seconds)}"] if 0 < seconds < math.inf else []


def _print_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
