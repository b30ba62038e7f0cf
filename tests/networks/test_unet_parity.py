"""The same numbers as diffusers' `UNet2DModel` with the same weights: outputs and gradients."""

import pytest
import torch

from diffusion.networks.unet import UNet

diffusers = pytest.importorskip("diffusers")

TAILS = {
    # residual block
    "norm1": "norm_1",
    "norm2": "norm_2",
    "conv1": "conv_1",
    "conv2": "conv_2",
    "time_emb_proj": "embedding",
    "conv_shortcut": "shortcut",
    # attention
    "group_norm": "norm",
    "to_out.0": "out",
    # resampling
    "downsamplers.0.conv": "resample",
    "upsamplers.0.conv": "resample",
}
HEADS = {
    "down_blocks": "down",
    "up_blocks": "up",
    "mid_block.resnets.0": "middle.0",
    "mid_block.attentions.0": "middle.1",
    "mid_block.resnets.1": "middle.2",
    "resnets": "residuals",
    "conv_norm_out": "norm_out",
}


def our_name(theirs: str) -> str:
    for old, new in (HEADS | TAILS).items():
        theirs = theirs.replace(old, new)
    return theirs


def our_weights(theirs: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Renames, joins q, k and v, and turns cosines-first into sines-first."""
    state = theirs.state_dict()
    ours = {our_name(name): w for name, w in state.items() if not any(f".to_{p}." in name for p in "qkv")}
    for name in state:
        if ".to_q." in name:
            parts = [state[name.replace(".to_q.", f".to_{p}.")] for p in "qkv"]
            ours[our_name(name).replace(".to_q.", ".qkv.")] = torch.cat(parts)
    if theirs.config.flip_sin_to_cos:
        w = ours["time_embedding.linear_1.weight"]
        ours["time_embedding.linear_1.weight"] = w.roll(w.shape[1] // 2, dims=1)
    return ours


def blocks(kinds: str) -> dict[str, tuple[str, ...]]:
    """Block types of `UNet2DModel` from one letter per level: A with attention, - without."""
    down = tuple("AttnDownBlock2D" if kind == "A" else "DownBlock2D" for kind in kinds)
    up = tuple("AttnUpBlock2D" if kind == "A" else "UpBlock2D" for kind in reversed(kinds))
    return {"down_block_types": down, "up_block_types": up}


COMMON = {"norm_num_groups": 8}
CASES = {
    "as the paper: TF padding, one head, frequencies to 1/10000": (
        COMMON
        | blocks("-A-")
        | {"block_out_channels": (16, 32, 32), "downsample_padding": 0, "attention_head_dim": None}
        | {"freq_shift": 1, "flip_sin_to_cos": False, "norm_eps": 1e-6},
        {"widths": (16, 32, 32), "attention": (8,)},
    ),
    "as diffusers' defaults: heads of 8, symmetric padding, cosines first": (
        COMMON | blocks("-AA") | {"block_out_channels": (16, 24, 32)},
        {"widths": (16, 24, 32), "attention": (8, 4), "head_width": 8}
        | {"norm_eps": 1e-5, "freq_shift": 0, "downsample_padding": 1},
    ),
    "no attention, one layer, a width that shrinks": (
        COMMON | blocks("--") | {"block_out_channels": (32, 16), "layers_per_block": 1, "add_attention": False},
        {"widths": (32, 16), "layers": 1, "attention": (), "mid_attention": False}
        | {"norm_eps": 1e-5, "freq_shift": 0, "downsample_padding": 1},
    ),
    "attention everywhere, three layers, a large norm_eps": (
        COMMON
        | blocks("AA")
        | {"block_out_channels": (16, 16), "layers_per_block": 3, "attention_head_dim": 16, "norm_eps": 0.1},
        {"widths": (16, 16), "layers": 3, "attention": (16, 8), "head_width": 16}
        | {"norm_eps": 0.1, "freq_shift": 0, "downsample_padding": 1},
    ),
}


@pytest.mark.parametrize(("theirs", "ours"), CASES.values(), ids=CASES.keys())
def test_equals_diffusers(theirs, ours):
    torch.manual_seed(0)
    peer = diffusers.UNet2DModel(sample_size=16, in_channels=3, out_channels=3, **theirs).eval()
    network = UNet(3, 3, 16, norm_groups=8, **ours).eval()
    network.load_state_dict(our_weights(peer))  # strict: every weight of one is a weight of the other

    x, probe = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16)
    t = torch.tensor([3, 871])
    x_peer, x_ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, got = peer(x_peer, t).sample, network(x_ours, t.float())
    (expected * probe).sum().backward()
    (got * probe).sum().backward()

    assert expected.std() > 0.05  # the comparison is of something
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(x_ours.grad, x_peer.grad, atol=1e-5, rtol=1e-5)
