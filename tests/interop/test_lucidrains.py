"""Files of lucidrains' Trainer: the same numbers as denoising-diffusion-pytorch from the same weights."""

import pytest
import torch

from diffusion.conditioners.condition import Condition
from diffusion.ground.errors import UserError
from diffusion.interop import lucidrains
from diffusion.interop.foreign import write
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM
from tests.interop.models import model_of, sample

peers = pytest.importorskip("denoising_diffusion_pytorch")
ema_pytorch = pytest.importorskip("ema_pytorch")

UNETS = {
    "defaults": {"dim": 16, "dim_mults": (1, 2, 4)},
    "full attention elsewhere, other heads, self-conditioning": {
        "dim": 16,
        "dim_mults": (2, 1, 3),
        "full_attn": (False, True, False),
        "attn_heads": 2,
        "attn_dim_head": 8,
        "self_condition": True,
        "channels": 1,
    },
    # 4 is also the number of learned tokens: shapes alone do not tell linear from full attention
    "heads of 4": {"dim": 8, "dim_mults": (1, 2), "full_attn": (True, False), "attn_dim_head": 4},
}


def peer_of(unet="defaults", seed=0, **options):
    """A GaussianDiffusion whose every weight matters: also those that start as 1."""
    torch.manual_seed(seed)
    options = {"image_size": 16, "beta_schedule": "cosine"} | options
    peer = peers.GaussianDiffusion(peers.Unet(**UNETS[unet]), **options).eval()
    with torch.no_grad():
        for p in peer.parameters():
            p.add_(0.05 * torch.randn_like(p))
        for block in peer.modules():
            if isinstance(block, torch.nn.Linear):
                block.weight.mul_(2)
    return peer


def saved(path, peer, ema=None, **changes):
    """As `Trainer.save` does it."""
    opt = torch.optim.Adam(peer.parameters())
    ema = ema or ema_pytorch.EMA(peer)
    contents = {"step": 7000, "model": peer.state_dict(), "opt": opt.state_dict(), "ema": ema.state_dict()}
    torch.save(contents | {"scaler": None, "version": "2.3.4"} | changes, path / "model-10.pt")
    return path / "model-10.pt"


@pytest.mark.parametrize("unet", UNETS)
def test_same_outputs(unet, tmp_path):
    peer = peer_of(unet)
    foreign = lucidrains.read(saved(tmp_path, peer), size=16)
    network, channels = model_of(foreign, tmp_path).denoiser.network, peer.channels
    x, shown, t = torch.randn(2, channels, 16, 16), torch.randn(2, channels, 16, 16), torch.tensor([3, 871])
    with torch.no_grad():
        expected = peer.model(x, t, shown if peer.self_condition else None)
        got = network(x, t.float(), Condition.of(previous=shown) if peer.self_condition else None)
    assert foreign.config["self_conditioning"] == peer.self_condition
    assert foreign.step == 7000
    assert expected.std() > 0.1  # the comparison is of something
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


SAMPLED = [
    ("defaults", {"objective": "pred_v", "beta_schedule": "sigmoid"}),
    ("full attention elsewhere, other heads, self-conditioning", {"objective": "pred_noise"}),
    ("heads of 4", {"objective": "pred_x0", "schedule_fn_kwargs": {"s": 0.02}}),
]


@pytest.mark.parametrize(("unet", "options"), SAMPLED)
def test_same_samples_of_ddim_in_ten_steps(unet, options, tmp_path):
    peer = peer_of(unet, **options, timesteps=1000, sampling_timesteps=10)
    shape = (2, peer.channels, 16, 16)
    torch.manual_seed(1)
    expected = peer.ddim_sample(shape) * 2 - 1
    torch.manual_seed(1)
    x_T = torch.randn(shape)
    got = sample(model_of(lucidrains.read(saved(tmp_path, peer), size=16), tmp_path), DDIM(steps=10), x_T, [])
    assert 0.2 < expected.std() < 1
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("unet", "options"), SAMPLED[:2])
def test_same_samples_of_all_ten_steps(unet, options, tmp_path):
    peer = peer_of(unet, **options, timesteps=10)
    shape = (2, peer.channels, 16, 16)
    torch.manual_seed(1)
    expected = peer.p_sample_loop(shape) * 2 - 1
    torch.manual_seed(1)
    x_T, *noise = (torch.randn(shape) for _ in range(11))
    foreign = lucidrains.read(saved(tmp_path, peer), size=16)
    got = sample(model_of(foreign, tmp_path), DDPM(variance=foreign.config["sampler"]["variance"]), x_T, noise)
    assert 0.2 < expected.std() < 1
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize(("objective", "prediction"), [("pred_noise", "Eps"), ("pred_x0", "X0"), ("pred_v", "V")])
@pytest.mark.parametrize("gamma", [None, 5, 2.5])
def test_the_buffers_tell_schedule_prediction_and_weighting(schedule, objective, prediction, gamma, tmp_path):
    given = {} if gamma is None else {"min_snr_loss_weight": True, "min_snr_gamma": gamma}
    peer = peer_of("heads of 4", beta_schedule=schedule, objective=objective, **given)
    config = lucidrains.read(saved(tmp_path, peer), size=16).config
    assert config["schedule"]["_target_"] == f"diffusion.schedule.{schedule}"
    assert config["schedule"]["T"] == 1000
    assert config["prediction"]["_target_"] == f"diffusion.parametrization.{prediction}"
    assert config["weighting"].get("gamma") == gamma


def test_the_average_is_the_average(tmp_path):
    peer = peer_of("heads of 4")
    ema = ema_pytorch.EMA(peer, beta=0.5, update_after_step=0, update_every=1)
    ema.update()
    before = peer.model.final_conv.bias.detach().clone()
    with torch.no_grad():
        peer.model.final_conv.bias.add_(1)
    for _ in range(3):
        ema.update()
    foreign = lucidrains.read(saved(tmp_path, peer, ema), size=16)
    torch.testing.assert_close(foreign.weights["conv_out.bias"], before + 1)
    torch.testing.assert_close(foreign.ema["conv_out.bias"], ema.ema_model.model.final_conv.bias)
    assert (foreign.ema["conv_out.bias"] - foreign.weights["conv_out.bias"]).abs().max() > 0.01
    assert foreign.weights.keys() == foreign.ema.keys()


def test_an_average_that_has_not_begun_is_none(tmp_path):
    assert lucidrains.read(saved(tmp_path, peer_of("heads of 4")), size=16).ema is None


def test_the_state_dict_alone_will_do(tmp_path):
    torch.save(peer_of("heads of 4").state_dict(), tmp_path / "model.pt")
    foreign = lucidrains.read(tmp_path / "model.pt", size=16)
    assert foreign.ema is None
    assert foreign.step == 0


def changed(**tensors):
    """The state dict with tensors put in (dots as __), or taken out where they are None."""
    named = {name.replace("__", "."): tensor for name, tensor in tensors.items()}

    def change(state):
        state = {name: tensor for name, tensor in state.items() if named.get(name, tensor) is not None}
        return state | {name: tensor for name, tensor in named.items() if tensor is not None}

    return change


MISTAKES = {
    "no size": (changed(), None, "the weights do not determine the image size: set size="),
    "a size that does not divide": (changed(), 15, "15 does not divide by 2"),
    "another program": (changed(model__init_conv__weight=None), 16, "not a file of the Trainer"),
    "a tensor missing": (changed(model__mid_attn__to_qkv__weight=None), 16, "not fit the network: middle.1.qkv.weight"),
    "a tensor too many": (changed(model__extra__weight=torch.zeros(1)), 16, "does not have: extra.weight"),
    "a wrong shape": (changed(model__final_conv__bias=torch.zeros(5)), 16, r"conv_out.bias has the shape \[5\]"),
    "an older version: no learned tokens": (changed(model__mid_attn__mem_kv=None), 16, "older versions have others"),
    "no betas": (changed(betas=None), 16, "betas"),
    "betas of no schedule": (changed(betas=torch.full((1000,), -0.01)), 16, "each a number above 0"),
    "a strange weighting": (changed(loss_weight=torch.full((1000,), 0.7)), 16, "loss_weight matches no objective"),
}


@pytest.mark.parametrize(("change", "size", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_one_clear_line(change, size, message, tmp_path):
    peer = peer_of("heads of 4")
    path = saved(tmp_path, peer, model=change(peer.state_dict()))
    with pytest.raises(UserError, match=message) as caught:
        write(lucidrains.read(path, size=size), tmp_path / "ours.ckpt")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
