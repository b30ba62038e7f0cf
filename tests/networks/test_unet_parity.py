"""The same numbers as diffusers' `UNet2DModel` with the same weights: outputs and gradients."""

import pytest
import torch

from diffusion.interop import diffusers as interop
from diffusion.runs import build
from diffusion.runs.groups import choice

diffusers = pytest.importorskip("diffusers")


def blocks(kinds: str) -> dict[str, tuple[str, ...]]:
    """Block types of `UNet2DModel` from one letter per level: A with attention, - without."""
    down = tuple("AttnDownBlock2D" if kind == "A" else "DownBlock2D" for kind in kinds)
    up = tuple("AttnUpBlock2D" if kind == "A" else "UpBlock2D" for kind in reversed(kinds))
    return {"down_block_types": down, "up_block_types": up}


CASES = {
    "as the paper: TF padding, one head, frequencies to 1/10000": (
        blocks("-A-")
        | {"block_out_channels": (16, 32, 32), "downsample_padding": 0, "attention_head_dim": None}
        | {"freq_shift": 1, "flip_sin_to_cos": False, "norm_eps": 1e-6},
        {"widths": [16, 32, 32], "attention": [8]},
    ),
    "as diffusers' defaults: heads of 8, symmetric padding, cosines first": (
        blocks("-AA") | {"block_out_channels": (16, 24, 32)},
        {"widths": [16, 24, 32], "attention": [8, 4], "head_width": 8}
        | {"norm_eps": 1e-5, "freq_shift": 0, "downsample_padding": 1},
    ),
    "no attention, one layer, a width that shrinks": (
        blocks("--") | {"block_out_channels": (32, 16), "layers_per_block": 1, "add_attention": False},
        {"widths": [32, 16], "layers": 1, "attention": [], "mid_attention": False, "head_width": 8}
        | {"norm_eps": 1e-5, "freq_shift": 0, "downsample_padding": 1},
    ),
    "attention everywhere, three layers, a large norm_eps": (
        blocks("AA")
        | {"block_out_channels": (16, 16), "layers_per_block": 3, "attention_head_dim": 16, "norm_eps": 0.1},
        {"widths": [16, 16], "layers": 3, "attention": [16, 8], "head_width": 16}
        | {"norm_eps": 0.1, "freq_shift": 0, "downsample_padding": 1},
    ),
}


@pytest.mark.parametrize(("theirs", "ours"), CASES.values(), ids=CASES.keys())
def test_equals_diffusers(theirs, ours, tmp_path):
    torch.manual_seed(0)
    peer = diffusers.UNet2DModel(sample_size=16, in_channels=3, out_channels=3, norm_num_groups=8, **theirs).eval()
    peer.save_pretrained(tmp_path)
    read = interop.read(tmp_path)
    paper = choice("network", "unet_ddpm") | {"dropout": 0.0, "norm_groups": 8}
    assert read.config["network"] == paper | ours
    network = build.instantiate(read.config["network"], in_channels=3, out_channels=3, size=16).eval()
    network.load_state_dict(read.weights)  # strict: every weight of one is a weight of the other

    x, probe = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16)
    t = torch.tensor([3, 871])
    x_peer, x_ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, got = peer(x_peer, t).sample, network(x_ours, t.float())
    (expected * probe).sum().backward()
    (got * probe).sum().backward()

    assert expected.std() > 0.05  # the comparison is of something
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(x_ours.grad, x_peer.grad, atol=1e-5, rtol=1e-5)
