"""LucidUNet by itself; that its numbers are lucidrains' is tested in tests/interop."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from diffusion.ground.errors import UserError
from diffusion.networks.lucid import LinearAttention, LucidUNet
from tests.helpers.labels import of

CONF = Path(__file__).parents[2] / "conf" / "network"
SMALL = {"width": 8, "multiples": (1, 2), "full_attention": (False, True), "heads": 2, "head_width": 4}


def test_the_config_has_the_size_of_theirs():
    """`Unet(dim=64, dim_mults=(1, 2, 4, 8))` of their README."""
    options = OmegaConf.to_container(OmegaConf.load(CONF / "unet_lucid.yaml"))
    assert options.pop("_target_") == "diffusion.networks.lucid.LucidUNet"
    with torch.device("meta"):
        network = LucidUNet(3, 3, 128, **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == 35_711_491


def test_linear_attention_is_attention_of_softmaxed_features():
    """out_i = sum_j <softmax(q_i) / sqrt(d), kappa_j> v_j, where kappa is the softmax of the keys over all tokens."""
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 9, 4), torch.randn(1, 2, 9, 4)
    weights = torch.einsum("bhid,bhjd->bhij", q.softmax(-1) / 2, k.softmax(-2))
    expected = torch.einsum("bhij,bhjd->bhid", weights, v)
    torch.testing.assert_close(LinearAttention(8, heads=2, head_width=4).attend(q, k, v), expected)


def test_every_parameter_learns_and_images_do_not_see_each_other():
    torch.manual_seed(0)
    network = LucidUNet(2, 1, 8, **SMALL)
    x, t = torch.randn(3, 2, 8, 8), torch.tensor([1.0, 50.0, 900.0])
    out = network(x, t)
    out.square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    torch.testing.assert_close(network(x[1:2], t[1:2]), out[1:2], atol=1e-5, rtol=0)


def test_sides_may_differ():
    torch.manual_seed(0)
    network, square = LucidUNet(3, 3, (8, 12), **SMALL), LucidUNet(3, 3, 8, **SMALL)
    square.load_state_dict(network.state_dict())
    x, t = torch.randn(2, 3, 8, 12), torch.tensor([1.0, 50.0])
    assert network(x, t).shape == x.shape
    assert torch.equal(network(x, t), square(x, t))


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (9, {}, "9 does not divide by 2 .*dataset.size=10"),
        ((8, 9), {}, "8x9 does not divide by 2 .2 levels.: use fewer network.multiples"),
        (8, {"full_attention": (True,)}, "full_attention=.*one value per level .2 levels."),
        (8, {"width": 9}, "network.width=9: expected an even number"),
        (8, {"conditioners": of("a", "b")}, "conditioning.label yields an embedding, but this network takes channels"),
    ],
)
def test_refusals(size, options, message):
    with pytest.raises(UserError, match=message):
        LucidUNet(1, 1, size, **(SMALL | options))
