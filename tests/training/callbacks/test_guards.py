"""A number that is none reaches neither weights nor average nor optimiser nor checkpoint; images are in [-1, 1]."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision

from diffusion.data.batches import Batch
from diffusion.ground.errors import UserError
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.optimization.averages import Decay
from diffusion.training.callbacks.checkpoints import Checkpoints
from diffusion.training.callbacks.ema import EMA
from diffusion.training.callbacks.guards import GradientGuard, RangeGuard
from tests.helpers.lit_models import digits, small_model

pytestmark = pytest.mark.filterwarnings("ignore")


CLIP = 1e-3


class Poison(Callback):
    """Spoils the loss or a gradient of the steps it is given, and notes what each step leaves behind."""

    def __init__(self, steps, what, value=float("nan")):
        self.steps, self.what, self.value = set(steps), what, value
        self.after = []

    def on_before_backward(self, trainer, pl_module, loss):
        if self.what == "loss" and trainer.global_step + 1 in self.steps:
            loss.data.fill_(self.value)  # the gradient stays finite

    def on_after_backward(self, trainer, pl_module):
        if self.what == "gradient" and trainer.global_step + 1 in self.steps:
            next(pl_module.parameters()).grad[0, 0] = self.value

    def on_train_batch_end(self, trainer, pl_module, *_):
        state = trainer.optimizers[0].state_dict()["state"]
        moments = [value.clone() for each in state.values() for value in each.values()]
        self.after.append([*(weight.detach().clone() for weight in pl_module.parameters()), *moments])


def fit(folder, *callbacks, steps=8, patience=5, ckpt=None, **options):
    guard = GradientGuard(CLIP, patience)
    saver = Checkpoints(folder, every_n_steps=1, keep=100)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=[*callbacks, RangeGuard(), guard, EMA(Decay(0.9)), saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )
    trainer.fit(small_model(), digits(), ckpt_path=ckpt, weights_only=True)
    return guard


def tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


class Norms(Callback):
    """Notes the norm of the gradients that each step sees: this hook comes after that of the callbacks before it."""

    def __init__(self):
        self.norms = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.norms.append(torch.nn.utils.get_total_norm([weight.grad for weight in pl_module.parameters()]).item())


def after_guard(folder, clip, **options):
    norms = Norms()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=3,
        callbacks=[GradientGuard(clip), norms],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )
    trainer.fit(model := small_model(), digits())
    assert all(weight.isfinite().all() for weight in model.parameters())
    return norms.norms


def test_gradients_are_clipped_and_0_leaves_them(tmp_path):
    assert after_guard(tmp_path, CLIP) == pytest.approx([CLIP] * 3, rel=1e-3)
    assert min(after_guard(tmp_path, 0.0)) > 0.1


def test_scaled_gradients_of_float16_are_clipped_at_their_true_norm(tmp_path):
    """The fused optimiser takes the scale of the loss off by itself; Lightning's own clipping refuses it therefore."""
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=256.0))
    assert after_guard(tmp_path, CLIP, plugins=[precision]) == pytest.approx([CLIP] * 3, rel=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path, what, value, caplog):
    poison = Poison({3, 6, 7}, what, value)
    assert fit(tmp_path, poison).skipped == 3
    for step, (before, after) in enumerate(zip(poison.after, poison.after[1:], strict=False), start=2):
        same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert same == (step in poison.steps), step
    for path in tmp_path.glob("*.ckpt"):
        contents = torch.load(path, weights_only=True)
        assert all(tensor.isfinite().all() for tensor in tensors(contents))
        assert contents["global_step"] == contents["lr_schedulers"][0]["last_epoch"]
    assert caplog.text.count("is skipped") == 3
    assert "step 6 is skipped" in caplog.text


def test_a_loss_of_an_accumulated_batch_counts_too(tmp_path):
    class First(Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            if trainer.fit_loop.epoch_loop.batch_idx == 0:
                loss.data.fill_(float("inf"))

    assert fit(tmp_path, First(), accumulate_grad_batches=2, steps=3).skipped == 1


def test_a_few_in_a_row_stop_the_run_and_report_the_step(tmp_path, caplog):
    with pytest.raises(UserError) as stopped:
        fit(tmp_path, poison := Poison({2, 4, 5, 6, 7}, "gradient"), patience=3)
    assert "3 steps in a row" in str(stopped.value)
    assert "the last of them step 6" in str(stopped.value)
    assert "4 were skipped in the whole run" in str(stopped.value)
    assert f"the last good checkpoint is {tmp_path / 'step_0000006.ckpt'}" in str(stopped.value)
    low, high = str(stopped.value).partition("t in ")[2].partition(";")[0].split("..")
    assert 1 <= float(low) < 50
    assert 950 < float(high) <= 1000
    assert len(poison.after) == 6
    contents = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in tensors(contents))


def test_the_count_is_kept_and_a_resumed_run_skips_the_same(tmp_path):
    fit(tmp_path / "whole", Poison({3, 6}, "loss"))
    fit(tmp_path / "half", Poison({3, 6}, "loss"), steps=4)
    rest = fit(tmp_path / "half", Poison({3, 6}, "loss"), ckpt=tmp_path / "half" / "last.ckpt")
    assert rest.skipped == 2
    one, two = (torch.load(tmp_path / run / "last.ckpt", weights_only=True) for run in ("whole", "half"))
    for weights in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(value, two[weights][key]) for key, value in one[weights].items())


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda x: x.float() / 127.5 - 1, r"torch.float32 with min -1, max 1, std 0\."),
        (lambda x: x.float() / 255, r"torch.float32 with min 0, max 1, std 0\."),
        (lambda x: x.int() * 2, r"torch.int32 with min 0, max 510, std"),
    ],
)
def test_images_of_another_range_are_refused(tmp_path, monkeypatch, convert, message):
    """A data module of the user's own that converts what we convert."""
    draw = LitDiffusion.on_before_batch_transfer

    def converted(self, batch, index):
        return draw(self, Batch(convert(batch.x), batch.condition, batch.index), index)

    monkeypatch.setattr(LitDiffusion, "on_before_batch_transfer", converted)
    with pytest.raises(UserError, match=message):
        fit(tmp_path)
    assert not list(tmp_path.glob("*.ckpt"))
