"""OpenAI's checkpoints: the same numbers from the same weights."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from diffusion.data.base import labelled
from diffusion.ground.errors import UserError
from diffusion.interop import openai
from diffusion.interop.foreign import write
from diffusion.networks.kernels.choice import use_kernels
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM
from tests.interop.models import model_of, sample
from tests.interop.openai_unet import OpenAIUNet, random_peer

IMPROVED = {"channels": 3, "out": 6, "width": 32, "mults": (1, 2, 2, 2), "layers": 1, "rates": (2, 4), "heads": 4}
GUIDED = {"channels": 3, "out": 6, "width": 32, "mults": (1, 2, 3), "layers": 2, "rates": (2, 4), "updown": True}
CASES = {  # the peer, the options, and the factor of t in its input
    "improved: heads first, t rescaled": (
        IMPROVED,
        {"schedule": "cosine", "T": 4000, "heads": 4, "rescale_timesteps": True},
        0.25,
    ),
    "improved: one head, embedding added, no variance": (
        IMPROVED | {"heads": 1, "film": False, "out": 3},
        {"schedule": "linear", "T": 500, "heads": 1},
        1,
    ),
    "guided: classes, residual blocks resample, q, k and v first": (
        GUIDED | {"head_width": 16, "order": "qkv_first", "classes": 5},
        {"size": 16, "schedule": "cosine", "T": 1000, "head_width": 16, "order": "qkv_first"},
        1,
    ),
    "guided: heads first, one channel": (
        GUIDED | {"head_width": 16, "channels": 1, "out": 2},
        {"size": 16, "schedule": "linear", "T": 1000, "head_width": 16},
        1,
    ),
    "as for 512x512: the first level has half of the base width": (
        GUIDED | {"heads": 2, "width": 64, "mults": (0.5, 1), "layers": 1},
        {"size": 16, "schedule": "linear", "T": 1000, "heads": 2},
        1,
    ),
}


def file_of(peer, folder):
    torch.save(peer.state_dict(), folder / "model.pt")
    return folder / "model.pt"


@pytest.mark.parametrize(("options", "settings", "scale"), CASES.values(), ids=CASES.keys())
def test_same_outputs(options, settings, scale, tmp_path):
    peer = random_peer(**options)
    foreign = openai.read(file_of(peer, tmp_path), **settings)
    network = model_of(foreign, tmp_path).denoiser.network
    size, classes = foreign.config["dataset"]["size"], options.get("classes")
    x, t = torch.randn(2, options["channels"], size, size), torch.tensor([3, settings["T"] - 20])
    y = torch.tensor([1, 4]) if classes else None
    with torch.no_grad():
        expected, got = peer(x, t * scale, y), network(x, t.float(), given(y))
    assert expected.std() > 0.1  # the comparison is of something
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def given(y):
    return None if y is None else labelled(y)


def betas_of(schedule, T):
    """Ho et al. 2020, scaled where T is not 1000; Nichol & Dhariwal 2021, Eq. 17."""
    if schedule == "linear":
        return torch.linspace(0.1 / T, 20 / T, T, dtype=torch.float64)
    f = [math.cos((k / T + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(T + 1)]
    return torch.tensor([min(1 - b / a, 0.999) for a, b in pairwise(f)], dtype=torch.float64)


@torch.no_grad()
def their_samples(peer, x, noise, indices, betas, scale, learned, y=None, ddim=False):
    """Their ancestral sampling or DDIM over the steps `indices` (falling, numbered from 0), with x_0 clipped."""
    bars = (1 - betas).cumprod(0)
    for z, index, before in zip(noise, indices, [*indices[1:], None], strict=True):
        bar, bar_before = bars[index], bars[before] if before is not None else torch.tensor(1.0, dtype=torch.float64)
        beta = 1 - bar / bar_before
        output = peer(x, torch.full((len(x),), index) * scale, y)
        eps, mix = output.chunk(2, dim=1) if learned else (output, None)
        x_0 = ((x - (1 - bar).sqrt() * eps) / bar.sqrt()).clamp(-1, 1)
        if ddim:
            eps = (x / bar.sqrt() - x_0) / (1 / bar - 1).sqrt()
            x = (bar_before.sqrt() * x_0 + (1 - bar_before).sqrt() * eps).float()
            continue
        mean = (beta * bar_before.sqrt() * x_0 + (1 - bar_before) * (1 - beta).sqrt() * x) / (1 - bar)
        if before is None:
            return mean.float()
        small = beta * (1 - bar_before) / (1 - bar)
        part = (mix + 1) / 2 if learned else 1
        variance = torch.exp(part * beta.log() + (1 - part) * small.log())
        x = (mean + variance.sqrt() * z).float()
    return x


@pytest.mark.parametrize("ddim", [False, True], ids=["ancestral", "ddim"])
@pytest.mark.parametrize(("options", "settings", "scale"), list(CASES.values())[:3], ids=list(CASES)[:3])
def test_same_samples_in_ten_steps(options, settings, scale, ddim, tmp_path):
    # Over ten steps with random weights the last bits add up, and those of our kernels differ from CPU to CPU: they are
    # compared with torch's operations in tests/networks/kernels/.
    peer = random_peer(**options)
    foreign = openai.read(file_of(peer, tmp_path), **settings)
    model, (channels, size), T = (
        model_of(foreign, tmp_path),
        (options["channels"], foreign.config["dataset"]["size"]),
        settings["T"],
    )
    use_kernels(model, False)
    indices = [T - 1 - k * (T // 10) for k in range(10)]
    x_T, *noise = torch.randn(11, 2, channels, size, size)
    y = torch.tensor([0, 3]) if options.get("classes") else None
    learned = options["out"] == 2 * channels
    expected = their_samples(peer, x_T, noise, indices, betas_of(settings["schedule"], T), scale, learned, y, ddim)

    times = [index + 1 for index in indices] + [0]
    sampler = DDIM(times=times) if ddim else DDPM(times=times, variance=foreign.config["sampler"]["variance"])
    got = sample(model, sampler, x_T, noise, given(y))
    assert 0.2 < expected.std() < 1
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_no_class_is_the_mean_of_all_classes(tmp_path):
    peer = random_peer(**GUIDED, heads=1, classes=5)
    foreign = openai.read(file_of(peer, tmp_path), size=16, schedule="linear", T=1000, heads=1)
    table = foreign.weights["conditioners.label.weight"]
    assert torch.equal(table[:5], peer.label_emb.weight)
    torch.testing.assert_close(table[5], peer.label_emb.weight.mean(0))
    assert foreign.config["conditioning"]["label"]["classes"] == ["0", "1", "2", "3", "4"]


# The flags that the two READMEs give for each published model
LEARNED = {"channels": 3, "out": 6}
ADM = LEARNED | {"width": 256, "layers": 2, "updown": True}
M_64, M_128, M_256 = (1, 2, 3, 4), (1, 1, 2, 3, 4), (1, 1, 2, 2, 4, 4)
PUBLISHED = {
    "cifar10_uncond_50M_500K": (
        LEARNED | {"width": 128, "mults": (1, 2, 2, 2), "layers": 3, "rates": (2, 4), "heads": 4},
        {"size": 32, "attention": [16, 8], "T": 4000, "heads": 4, "time_scale": 0.25},
    ),
    "imagenet64_uncond_100M_1500K": (
        LEARNED | {"width": 128, "mults": M_64, "layers": 3, "rates": (4, 8), "heads": 4},
        {"size": 64, "attention": [16, 8], "T": 4000, "heads": 4, "time_scale": 0.25},
    ),
    "imagenet64_cond_270M_250K": (
        LEARNED | {"width": 192, "mults": M_64, "layers": 3, "rates": (4, 8), "heads": 4, "classes": 1000},
        {"size": 64, "attention": [16, 8], "T": 4000, "heads": 4, "time_scale": 1.0},
    ),
    "lsun_uncond_100M_1200K_bs128": (
        LEARNED | {"width": 128, "mults": M_256, "layers": 2, "rates": (16,), "heads": 1, "film": False},
        {"size": 256, "attention": [16], "T": 1000, "heads": None, "time_scale": 1.0},
    ),
    "64x64_diffusion": (
        ADM | {"width": 192, "layers": 3, "mults": M_64, "rates": (2, 4, 8), "head_width": 64, "classes": 1000},
        {"size": 64, "attention": [32, 16, 8], "T": 1000, "head_width": 64, "time_scale": 1.0},
    ),
    "128x128_diffusion": (
        ADM | {"mults": M_128, "rates": (4, 8, 16), "heads": 4, "classes": 1000},
        {"size": 128, "attention": [32, 16, 8], "T": 1000, "heads": 4, "time_scale": 1.0},
    ),
    "256x256_diffusion": (
        ADM | {"mults": M_256, "rates": (8, 16, 32), "head_width": 64, "classes": 1000},
        {"size": 256, "attention": [32, 16, 8], "T": 1000, "head_width": 64, "time_scale": 1.0},
    ),
    "256x256_diffusion_uncond, lsun_cat": (
        ADM | {"mults": M_256, "rates": (8, 16, 32), "head_width": 64},
        {"size": 256, "attention": [32, 16, 8], "T": 1000, "head_width": 64, "time_scale": 1.0},
    ),
    "512x512_diffusion": (
        ADM | {"mults": (0.5, 1, 1, 2, 2, 4, 4), "rates": (16, 32, 64), "head_width": 64, "classes": 1000},
        {"size": 512, "attention": [32, 16, 8], "T": 1000, "head_width": 64, "time_scale": 1.0},
    ),
}


@pytest.mark.parametrize(("options", "expected"), PUBLISHED.values(), ids=PUBLISHED.keys())
def test_published_models_need_no_options(options, expected, monkeypatch):
    """Their whole size, on the meta device: names, shapes and what is known of them, no numbers."""
    with torch.device("meta"):
        state = OpenAIUNet(**options).state_dict()
    monkeypatch.setattr(openai, "load", lambda path: state)
    foreign = openai.read(Path("model.pt"))
    network = foreign.config["network"]
    assert foreign.config["dataset"] == {"channels": 3, "size": expected["size"]}
    assert foreign.config["schedule"]["T"] == expected["T"]
    assert {key: network[key] for key in ("attention", "time_scale")} == {
        key: expected[key] for key in ("attention", "time_scale")
    }
    assert (network["heads"], network["head_width"]) == (expected.get("heads"), expected.get("head_width"))
    # One row of labels more than theirs, for "no label".
    more = 4 * options["width"] if options.get("classes") else 0
    assert sum(w.numel() for w in foreign.weights.values()) == sum(w.numel() for w in state.values()) + more


def without(name):
    return lambda state: state.pop(name)


def with_one(name, tensor):
    return lambda state: state.update({name: tensor})


SETTINGS = {"schedule": "cosine", "T": 1000, "heads": 4}
MISTAKES = {
    "no options": (None, {}, "the weights do not determine schedule, T, heads"),
    "no heads": (None, SETTINGS | {"heads": None}, "the weights do not determine heads .or head_width."),
    "a schedule they lack": (None, SETTINGS | {"schedule": "sigmoid"}, "schedule=sigmoid: expected linear or cosine"),
    "an order of no one": (None, SETTINGS | {"order": "new"}, "order=new: expected heads_first, or qkv_first"),
    "heads that do not divide": (None, SETTINGS | {"heads": 7}, "network.heads=7"),
    "a size that does not divide": (None, SETTINGS | {"size": 36}, "36 does not divide by 8"),
    "another network": (without("time_embed.0.weight"), SETTINGS, "not a UNet of improved-diffusion"),
    "a classifier": (without("out.2.weight"), SETTINGS, "a classifier, or incomplete"),
    "an upsampler": (
        with_one("input_blocks.0.0.weight", torch.zeros(32, 6, 3, 3)),
        SETTINGS,
        "6 channels in and 6 out: an upsampler",
    ),
    "a tensor missing": (without("middle_block.1.norm.bias"), SETTINGS, "middle.1.norm.bias"),
    "a tensor too many": (with_one("extra.weight", torch.zeros(1)), SETTINGS, "extra.weight"),
    "a wrong shape": (with_one("out.0.weight", torch.zeros(31)), SETTINGS, "norm_out.weight"),
    "a block missing": (without("input_blocks.3.0.in_layers.2.weight"), SETTINGS, "not a UNet of OpenAI with"),
}


@pytest.mark.parametrize(("change", "settings", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_one_clear_line(change, settings, message, tmp_path):
    state = random_peer(**IMPROVED).state_dict()
    if change:
        change(state)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(UserError, match=message) as caught:
        write(openai.read(tmp_path / "model.pt", **settings), tmp_path / "ours.ckpt")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
