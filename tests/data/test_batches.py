"""The order of an epoch, the split over processes and exact resume, on images that carry their own number."""

from itertools import chain

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from diffusion.ground.errors import UserError
from tests.helpers.numbered import Numbered, at_rank


def labels_of(batch):
    return batch.condition.tensors["label"]


def epochs(data, count=1):
    loader = data.train_dataloader()
    return [[batch for batch in loader] for _ in range(count)]


def rows(batches):
    return torch.cat([labels_of(batch) for batch in batches]).tolist()


def test_an_epoch_is_a_permutation_and_a_function_of_seed_and_epoch():
    first, second = epochs(Numbered(seed=3), 2)
    assert sorted(rows(first)) == sorted(rows(second)) == list(range(20))
    assert rows(first) != rows(second) != list(range(20))
    again = Numbered(seed=3)
    again.position = 5
    assert rows(epochs(again)[0]) == rows(second)
    assert rows(epochs(Numbered(seed=4))[0]) != rows(first)


def test_images_labels_and_indexes_belong_together():
    batches = list(chain(*epochs(Numbered(n=22), 2)))  # two of 22 are left out of each epoch
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(40))
    for batch in batches:
        assert batch.x.dtype == torch.uint8
        assert batch.x[:, 0, 0, 1].tolist() == labels_of(batch).tolist()


@pytest.mark.parametrize("flip", [False, True])
def test_two_processes_together_get_the_batch_of_one(flip):
    whole, left, right = (
        epochs(data)[0]
        for data in (
            Numbered(flip=flip),
            at_rank(Numbered(flip=flip), 0, 2),
            at_rank(Numbered(flip=flip), 1, 2),
        )
    )
    assert len(whole) == len(left) == len(right) == 5
    for one, *parts in zip(whole, left, right, strict=True):
        for field in ("x", "index"):
            assert torch.equal(getattr(one, field), torch.cat([getattr(part, field) for part in parts]))
        assert torch.equal(labels_of(one), torch.cat([labels_of(part) for part in parts]))


def test_flips_are_per_image_fair_and_only_in_training():
    data = Numbered(n=200, batch_size=100, flip=True)
    batches = chain(*epochs(data, 10))
    mirrored = torch.cat([batch.x[:, 0, 0, 1] == 255 for batch in batches])
    assert 0.45 < mirrored.double().mean() < 0.55
    assert 0 < mirrored[:100].sum() < 100
    assert all((batch.x[..., 0] == 255).all() for batch in data.val_dataloader())
    assert all((batch.x[..., 0] == 255).all() for batch in epochs(Numbered(n=200, batch_size=100))[0])


@pytest.mark.parametrize(
    ("n_val", "batch_size", "world_size"), [(7, 4, 1), (7, 4, 2), (9, 2, 2), (5, 4, 4), (16, 4, 2)]
)
def test_processes_share_the_validation_set_without_duplicates(n_val, batch_size, world_size):
    ranks = [
        list(at_rank(Numbered(n_val=n_val, batch_size=batch_size), rank, world_size).val_dataloader())
        for rank in range(world_size)
    ]
    batches = list(chain(*ranks))
    index = torch.cat([batch.index for batch in batches])
    assert sorted(index.tolist()) == list(range(n_val))
    assert torch.equal(index, torch.cat([labels_of(batch) for batch in batches]))
    assert len({len(batches) for batches in ranks}) == 1, "a process with fewer batches hangs the others"
    assert min(len(batch.condition) for batch in batches) > 0


def test_capped_validation_is_spread_over_the_set():
    batches = list(Numbered(n_val=10, val_images=5).val_dataloader())
    assert rows(batches) == [0, 2, 4, 6, 8]
    assert torch.cat([batch.index for batch in batches]).tolist() == [0, 1, 2, 3, 4]
    assert len(rows(Numbered(n_val=3, val_images=5).val_dataloader())) == 3


class Recorder(LightningModule):
    """Learns nothing and remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated, self.epochs = [], [], []

    def training_step(self, batch, batch_idx):
        self.seen.append((batch.index.tolist(), labels_of(batch).tolist()))
        self.epochs.append((self.current_epoch, batch_idx))
        return self.weight * batch.x.float().mean()

    def validation_step(self, batch, batch_idx):
        self.validated.append((self.trainer.global_step, batch.index.tolist()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(tmp_path, data=None, ckpt_path=None, save=None, **limits):
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **limits,
    )
    recorder = Recorder()
    trainer.fit(recorder, datamodule=data or Numbered(), ckpt_path=ckpt_path, weights_only=True)
    if save:
        trainer.save_checkpoint(save)
    return recorder


@pytest.mark.filterwarnings("ignore", "error:.*not resumable")
@pytest.mark.parametrize("first", [1, 3, 5, 7, 10, 12])  # five batches are an epoch
def test_a_resumed_run_sees_what_an_unbroken_one_sees(tmp_path, first):
    whole = fit(tmp_path, max_steps=14)
    fit(tmp_path, max_steps=first, save=tmp_path / "part.ckpt")
    rest = fit(tmp_path, max_steps=14, ckpt_path=tmp_path / "part.ckpt")
    assert len(whole.seen) == 14
    assert rest.seen == whole.seen[first:]


def test_checkpoints_written_during_training_resume_exactly(tmp_path):
    """Written where ModelCheckpoint writes: after a batch, and after the validation of an epoch."""
    every_step = ModelCheckpoint(
        tmp_path, "step{step}", every_n_train_steps=1, save_top_k=-1, auto_insert_metric_name=False
    )
    every_epoch = ModelCheckpoint(tmp_path, "epoch{step}", save_top_k=-1, auto_insert_metric_name=False)
    options = {"enable_checkpointing": True, "callbacks": [every_step, every_epoch]}
    recorder = Recorder()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    Trainer(default_root_dir=tmp_path, max_steps=12, **quiet, **options).fit(recorder, datamodule=Numbered())
    for path in sorted(tmp_path.glob("*.ckpt")):
        step = int(path.stem.removeprefix("step").removeprefix("epoch"))
        if step < 12:
            rest = fit(tmp_path, max_steps=12, ckpt_path=path)
            assert rest.seen == recorder.seen[step:], path.name
            assert rest.epochs == recorder.epochs[step:], path.name
            assert after(step, rest.validated) == after(step, recorder.validated), path.name


def after(step, validated):
    return [index for at, index in validated if at > step]


def test_gradient_accumulation_counts_batches_not_steps(tmp_path):
    whole = fit(tmp_path, max_steps=6, accumulate_grad_batches=2)
    fit(tmp_path, max_steps=2, accumulate_grad_batches=2, save=tmp_path / "part.ckpt")
    rest = fit(tmp_path, max_steps=6, accumulate_grad_batches=2, ckpt_path=tmp_path / "part.ckpt")
    assert rest.seen == whole.seen[4:]


def test_shortened_epochs_go_on_where_the_last_one_stopped(tmp_path):
    recorder = fit(tmp_path, max_epochs=3, limit_train_batches=2)
    assert recorder.seen == fit(tmp_path, max_steps=6).seen


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: at_rank(Numbered(batch_size=6), 0, 4), "batch_size=6 is shared by 4 processes.*try 4"),
        (lambda: Numbered(n=3), "batch_size=4 is more than the 3 training images"),
        (lambda: Numbered(batch_size=0), "batch_size=0: expected a whole number, 1 or more"),
    ],
)
def test_impossible_batches_are_refused(data, message):
    with pytest.raises(UserError, match=message):
        data().train_dataloader()


def test_more_processes_than_validation_images_are_refused():
    with pytest.raises(UserError, match=r"1 validation images, but each of 2"):
        at_rank(Numbered(n_val=1), 0, 2).val_dataloader()
