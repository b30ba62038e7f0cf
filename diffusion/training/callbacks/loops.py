"""What Lightning's loops have counted, put in order before a checkpoint that is not written at one of its own moments.

A resumed run believes these counts: one that is off by a batch repeats or leaves out a batch, draws other dropout, or
validates on a part of the images.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer

_NEVER = sys.maxsize  # batches from one validation to the next


def batches_begun(trainer: Trainer) -> int:
    """Training batches begun in the whole run."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def align_logged_step(trainer: Trainer) -> None:
    """Lightning's own count of steps for its loggers falls behind by one where a run resumes after a last validation in
    the middle of an epoch. Before each batch it is the number of steps done."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def contents(trainer: Trainer) -> dict[str, Any]:
    """Those of a checkpoint of this process, which waits for no other."""
    return trainer._checkpoint_connector.dump_checkpoint(False)


def forget_batches(trainer: Trainer, n: int) -> None:
    """The last n batches that were begun, all of this epoch, count as never seen: they reached no optimiser step."""
    if n:
        progress = trainer.fit_loop.epoch_loop.batch_progress
        for count in (progress.total, progress.current):
            seen = count.ready - n
            count.load_state_dict(dict.fromkeys(("ready", "started", "processed", "completed"), seen))
        progress.is_last_batch = False


def is_last_step(trainer: Trainer) -> bool:
    """Whether the run ends with this step, which is always validated."""
    return trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step


def run_ends(trainer: Trainer) -> bool:
    """Whether nothing is trained after this step, whichever limit it is that ends the run."""
    epochs = epochs_ended(trainer)
    return is_last_step(trainer) or (epochs is not None and 0 <= (trainer.max_epochs or -1) <= epochs)


def epochs_ended(trainer: Trainer) -> int | None:
    """Epochs done after the batch that has just ended; None in the middle of an epoch."""
    ended = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    return trainer.current_epoch + 1 if ended else None


def leave_validations(trainer: Trainer) -> None:
    """From here on Lightning validates where `validate_next` asks for it, and where the run is told to stop."""
    trainer.check_val_every_n_epoch, trainer.val_check_interval = None, _NEVER


def validate_next(trainer: Trainer, due: bool) -> None:
    """Says whether there is a validation after the batch that has just ended."""
    trainer.val_check_batch = 1 if due else _NEVER  # batches from one to the next


def resumes_at_validation(trainer: Trainer) -> bool:
    """Whether the checkpoint that the run goes on from was written in a validation or after it. Lightning, if it is
    asked for one, then knows whether to finish it or to leave it out."""
    loop = trainer.fit_loop.epoch_loop
    return loop.val_loop.restarted_mid_evaluation or loop.restarted_on_last


def validation_follows(trainer: Trainer) -> bool:
    """Whether there is a validation after this batch. A run that is resumed from here would leave that out."""
    loop = trainer.fit_loop
    return is_last_step(trainer) or loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # pyright: ignore[reportArgumentType] (there is one while it runs)


@contextmanager
def owing_validation(trainer: Trainer) -> Iterator[None]:
    """What is saved here resumes with the validation of the epoch whose last batch is done, from its first image.

    These are the counts by which Lightning knows that it was stopped while it validated, at the first batch.
    """
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    progress.total.reset()
    progress.current.reset()
    progress.total.load_state_dict({"ready": 1, "started": 1, "processed": 0, "completed": 0})
    yield
    progress.total.reset()
