import pytest
import torch
from lightning.pytorch import Trainer

from diffusion import parametrization, process, schedule
from diffusion.denoiser import Denoiser
from diffusion.lit.lightning_module import SIMPLE
from diffusion.losses.timesteps import steps
from diffusion.networks.unet import UNet
from diffusion.optimization.averages import Decay
from diffusion.optimization.optimizers import AdamW
from diffusion.process import Noised
from diffusion.samplers.ddpm import DDPM
from diffusion.training.callbacks.checkpoints import Checkpoints
from diffusion.training.callbacks.ema import EMA
from tests.helpers.lit_models import digits, everything_model, small_model

pytestmark = pytest.mark.filterwarnings("ignore")


def trainer(folder, max_steps, **options):
    return Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[EMA(Decay(0.9)), Checkpoints(folder)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
        **options,
    )


def both_weights(path):
    contents = torch.load(path, weights_only=True)
    return contents["state_dict"], contents["ema_state_dict"]


@pytest.mark.parametrize("first", [5, 7, 10])  # the end of an epoch, the middle of one, the end of the next
def test_n_plus_n_steps_equal_2n_steps_bit_for_bit(tmp_path, first):
    trainer(tmp_path / "whole", 13).fit(small_model(), digits())
    trainer(tmp_path / "half", first).fit(small_model(), digits())
    trainer(tmp_path / "rest", 13).fit(
        small_model(), digits(), ckpt_path=tmp_path / "half" / "last.ckpt", weights_only=True
    )
    for whole, rest in zip(*(both_weights(tmp_path / name / "last.ckpt") for name in ("whole", "rest")), strict=True):
        assert all(torch.equal(whole[key], rest[key]) for key in whole)
    raw, ema = both_weights(tmp_path / "rest" / "last.ckpt")
    assert any(not torch.equal(raw[key], ema[key]) for key in raw)


def test_what_objectives_remember_survives_a_resume_bit_for_bit(tmp_path):
    trainer(tmp_path / "whole", 8).fit(everything_model(), digits())
    trainer(tmp_path / "half", 4).fit(everything_model(), digits())
    rest = everything_model()
    trainer(tmp_path / "rest", 8).fit(rest, digits(), ckpt_path=tmp_path / "half" / "last.ckpt", weights_only=True)
    contents = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "rest")]
    for weights in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(value, contents[1][weights][key]) for key, value in contents[0][weights].items())
    assert torch.equal(contents[0]["timesteps"]["losses"], contents[1]["timesteps"]["losses"])
    assert (rest.timesteps.counts >= 2).all()  # the distribution was no longer uniform


def test_a_resumed_run_takes_the_learning_rate_it_is_given(tmp_path, capfd):
    trainer(tmp_path, 3).fit(small_model(), digits())
    resumed = trainer(tmp_path / "more", 5)
    model = small_model(lr=2e-4)
    resumed.fit(model, digits(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert resumed.optimizers[0].param_groups[0]["lr"] == pytest.approx(2e-4)


def test_the_loss_is_the_distance_of_the_networks_output_from_the_noise_that_made_x_t():
    model = small_model().eval()
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 4, 1, 8, 8, generator=generator)
    t = torch.tensor([1.0, 250, 700, 1000])
    x_t = process.q_sample(model.denoiser.schedule, x_0, t, eps)
    expected = ((model.denoiser.network(x_t, t - 1, None) - eps) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(SIMPLE(model.denoiser, Noised.of(model.denoiser.schedule, x_0, t, eps)), expected)


def test_every_step_is_drawn_equally_often():
    t = steps(torch.arange(4000).double() / 4000, 1000)
    assert t.unique(return_counts=True)[0].tolist() == list(range(1, 1001))
    assert (t.unique(return_counts=True)[1] == 4).all()
    assert steps(torch.tensor([0.0, 1 - 2**-32], dtype=torch.float64), 1000).tolist() == [1, 1000]


def test_validation_is_fixed_and_whole(tmp_path):
    """The same weights give the same loss again, and it is the mean over every image and four bands of t."""
    model = small_model(seed=1)
    runner = trainer(tmp_path, 1)
    first = runner.validate(model, digits(), verbose=False)[0]
    other_seed = small_model(seed=2)
    again = trainer(tmp_path, 1).validate(other_seed, digits(), verbose=False)[0]
    assert first == again
    assert set(first) == {"val/loss", *(f"val/loss_t{k}of4" for k in (1, 2, 3, 4))}
    bands = [first[f"val/loss_t{k}of4"] for k in (1, 2, 3, 4)]
    assert first["val/loss"] == pytest.approx(sum(bands) / 4, rel=0.02)  # 64 images: 16 to a band, give or take one
    assert min(bands) > 0


def test_a_quarter_without_an_image_has_no_loss_instead_of_nan(tmp_path):
    data = digits()
    data.val_images = 1
    logged = trainer(tmp_path, 1).validate(small_model(), data, verbose=False)[0]
    [quarter] = logged.keys() - {"val/loss"}
    assert logged[quarter] == logged["val/loss"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_one_batch_is_learnt_by_heart(channels, size):
    """Fixed images, t and noise: a UNet that is wired right drives the loss towards 0."""
    torch.manual_seed(0)
    network = UNet(channels, channels, size, widths=(16, 32), layers=1, attention=(size // 2,), norm_groups=8)
    denoiser = Denoiser(network, schedule.linear(), parametrization.Eps())
    x_0, eps = torch.randn(2, 4, channels, size, size).clamp(-1, 1)
    t = torch.tensor([1.0, 200, 500, 1000])
    optimizer, _ = AdamW(lr=3e-3, warmup_steps=0).build(denoiser.parameters())
    history = []
    for _ in range(250):
        loss = SIMPLE(denoiser, Noised.of(denoiser.schedule, x_0, t, eps)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[0] > 0.3
    assert history[-1] < 0.1 * history[0]


def test_sampling_leaves_mode_and_global_randomness_as_they_were():
    model = small_model().train()
    before = torch.get_rng_state()
    images = model.sample(3, seed=1, sampler=DDPM(steps=4), progress=False)
    assert images.shape == (3, 1, 8, 8)
    assert model.training
    assert model.denoiser.network.layers[2].training
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_is_off_while_sampling():
    model = small_model().train()
    sampler = DDPM(steps=4)
    first = model.sample(2, seed=1, sampler=sampler, progress=False)
    assert torch.equal(first, model.sample(2, seed=1, sampler=sampler, progress=False))
    assert not torch.equal(first, model.sample(2, seed=2, sampler=sampler, progress=False))
