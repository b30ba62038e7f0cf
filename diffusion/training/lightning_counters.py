"""Reads and corrects the private counters of Lightning's loops, for checkpoints at unplanned moments.

A resumed run relies on these counters: an error of one repeats or skips a batch, changes the dropout masks, or
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
    """Sets the step that Lightning logs to the steps done, before each batch. It is behind by one in a run resumed
    after a final validation in the middle of an epoch."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def contents(trainer: Trainer) -> dict[str, Any]:
    """The contents of a checkpoint of this process; does not wait for others."""
    return trainer._checkpoint_connector.dump_checkpoint(False)


def forget_batches(trainer: Trainer, n: int) -> None:
    """Uncounts the last n batches that were begun, all of this epoch: they reached no optimizer step."""
    if n:
        progress = trainer.fit_loop.epoch_loop.batch_progress
        for count in (progress.total, progress.current):
            names = ("ready", "started", "processed", "completed")
            count.load_state_dict(dict.fromkeys(names, count.ready - n))
        progress.is_last_batch = False


def is_last_step(trainer: Trainer) -> bool:
    """Whether the run ends with this step, which is always validated."""
    return trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step


def run_ends(trainer: Trainer) -> bool:
    """Whether this step is the last, by any limit of the run."""
    epochs, limit = epochs_ended(trainer), trainer.max_epochs
    return is_last_step(trainer) or (epochs is not None and limit is not None and 0 <= limit <= epochs)


def epochs_ended(trainer: Trainer) -> int | None:
    """Epochs done if the batch that just ended is the last of an epoch, else None."""
    ended = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    return trainer.current_epoch + 1 if ended else None


def leave_validations(trainer: Trainer) -> None:
    """From now on Lightning validates only on `validate_next`, and before the run stops."""
    trainer.check_val_every_n_epoch, trainer.val_check_interval = None, _NEVER


def validate_next(trainer: Trainer, due: bool) -> None:
    """Sets whether a validation follows the batch that just ended."""
    trainer.val_check_batch = 1 if due else _NEVER  # batches between two validations


def resumes_at_validation(trainer: Trainer) -> bool:
    """Whether the checkpoint that the run resumes from was written during or after a validation. If a validation is due
    then, Lightning finishes or skips it."""
    loop = trainer.fit_loop.epoch_loop
    return loop.val_loop.restarted_mid_evaluation or loop.restarted_on_last


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation follows this batch. A run resumed from a checkpoint written here would skip it."""
    loop = trainer.fit_loop
    fetcher = loop._data_fetcher
    return is_last_step(trainer) or (fetcher is not None and loop.epoch_loop._should_check_val_fx(fetcher))


@contextmanager
def owing_validation(trainer: Trainer) -> Iterator[None]:
    """A checkpoint written in this context resumes with the validation, from its first image.

    The counters look to Lightning like those of a run interrupted at the first batch of a validation.
    """
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    progress.total.reset()
    progress.current.reset()
    progress.total.load_state_dict({"ready": 1, "started": 1})
    yield
    progress.total.reset()
