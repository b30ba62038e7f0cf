"""Short trainings that are watched, and the checkpoints that they end with."""

import torch
from lightning.pytorch import Callback, Trainer

from diffusion.optimization.averages import Decay
from diffusion.runs import checkpoint
from diffusion.training.cadence import Cadence
from diffusion.training.callbacks.checkpoints import Checkpoints
from diffusion.training.callbacks.ema import EMA
from diffusion.training.callbacks.validations import Validations
from tests.helpers.lit_models import digits, small_model

STEPS = 13  # 5 batches an epoch: the third epoch is cut short
EACH_EPOCH = Cadence(every_n_epochs=1)


class Watch(Callback):
    """Notes what each step was given and when there was a validation; calls `at(trainer, hook)` in every hook."""

    def __init__(self, at=None):
        self.at = at or (lambda trainer, hook: None)
        self.batches, self.validations = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append((trainer.fit_loop.epoch_loop.total_batch_idx, batch.t.sum().item()))
        self.at(trainer, "batch start")

    def on_train_batch_end(self, trainer, *_):
        self.at(trainer, "batch end")

    def on_validation_batch_end(self, trainer, *_):
        if not trainer.sanity_checking:
            self.at(trainer, "validation batch")

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            images = sum(counts.sum().item() for _, counts in pl_module._validation)
            self.validations.append((trainer.global_step, trainer.current_epoch, images))
            self.at(trainer, "preview")


def fit(
    folder, watch=None, ckpt=None, model=None, accumulate=1, validate=EACH_EPOCH, steps=STEPS, images=None, **options
):
    """Trains the small model on the digits, saving into `folder`."""
    watch, saver = watch or Watch(), Checkpoints(folder, **options)
    saver.validated_on = images
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=[Validations(validate), EMA(Decay(0.9)), watch, saver],
        plugins=[checkpoint.AtomicCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
        accumulate_grad_batches=accumulate,
        num_sanity_val_steps=1,
    )
    trainer.fit(model or small_model(), digits(), ckpt_path=ckpt, weights_only=True)
    return watch


def contents(folder, name="last"):
    return torch.load(folder / f"{name}.ckpt", weights_only=True)


def assert_same_end(one, two):
    for weights in ("state_dict", "ema_state_dict"):
        for key, value in one[weights].items():
            assert torch.equal(value, two[weights][key]), (weights, key)
    for key, state in one["optimizer_states"][0]["state"].items():
        assert all(torch.equal(value, two["optimizer_states"][0]["state"][key][name]) for name, value in state.items())
    for part in ("global_step", "epoch", "Digits", "lr_schedulers"):
        assert one[part] == two[part]
