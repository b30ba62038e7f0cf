"""What Lightning's loops have counted, put in order before a checkpoint that is not written at one of its own moments.

A resumed run believes these counts: one that is off by a batch repeats or leaves out a batch, draws other dropout, or
validates on a part of the images.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer


def batches_begun(trainer: Trainer) -> int:
    """Training batches begun in the whole run."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def align_logged_step(trainer: Trainer) -> None:
    """Lightning's own count of steps for its loggers falls behind by one where a run resumes after a last validation in
    the middle of an epoch. Before each batch it is the number of steps done."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def epochs_done(saved: Mapping[str, Any]) -> int:
    """Epochs that a checkpoint has behind it, the validation of the last included."""
    loop = saved["loops"]["fit_loop"]
    validation = loop["epoch_loop.val_loop.batch_progress"]["total"]
    owes = validation["started"] > validation["processed"]
    ended = loop["epoch_loop.batch_progress"]["is_last_batch"] and not owes
    return loop["epoch_progress"]["current"]["processed"] + ended


def forget_batches(trainer: Trainer, n: int) -> None:
    """The last n batches that were begun, all of this epoch, count as never seen: they reached no optimiser step."""
    if n:
        progress = trainer.fit_loop.epoch_loop.batch_progress
        for count in (progress.total, progress.current):
            count.ready = count.started = count.processed = count.completed = count.ready - n
        progress.is_last_batch = False


def is_last_step(trainer: Trainer) -> bool:
    """Whether the run ends with this step, which is always validated."""
    return trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step


def validation_follows(trainer: Trainer) -> bool:
    """Whether the epoch is validated after this batch. A run that is resumed from here would leave that out."""
    if is_last_step(trainer):
        return True
    last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    return last and (trainer.current_epoch + 1) % trainer.check_val_every_n_epoch == 0


@contextmanager
def owing_validation(trainer: Trainer) -> Iterator[None]:
    """What is saved here resumes with the validation of the epoch whose last batch is done, from its first image.

    These are the counts by which Lightning knows that it was stopped while it validated, at the first batch.
    """
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    progress.total.reset()
    progress.current.reset()
    progress.total.ready = progress.total.started = 1
    yield
    progress.total.reset()
