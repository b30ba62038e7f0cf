from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from diffusion.data.base import labelled
from diffusion.ground.errors import UserError
from diffusion.networks.kernels.choice import use_kernels
from diffusion.networks.unet import UNet
from tests.helpers.labels import of

CONF = Path(__file__).parents[2] / "conf" / "network"
SMALL = {"widths": (16, 32), "layers": 1, "attention": (), "norm_groups": 8}


def from_yaml(name: str, channels: int, size: int) -> UNet:
    options = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert options.pop("_target_") == "diffusion.networks.unet.UNet"
    return UNet(channels, channels, size, **options).eval()


def awake(network: UNet) -> UNet:
    """The network with its zero-initialised layers filled, so that every layer counts."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05, generator=generator)
    return network.eval()


def test_paper_network_has_the_papers_size():
    """Ho et al. 2020, appendix B: "our CIFAR10 model has 35.7 million parameters"."""
    with torch.device("meta"):
        network = from_yaml("unet_ddpm", 3, 32)
    assert sum(parameter.numel() for parameter in network.parameters()) == 35_746_307


def test_adm_has_the_papers_size():
    """Dhariwal & Nichol 2021, on hyperparameters: 296M parameters at 64x64, with 1000 classes and learned variance."""
    options = OmegaConf.to_container(OmegaConf.load(CONF / "unet_adm.yaml"))
    del options["_target_"]
    with torch.device("meta"):
        network = UNet(3, 6, 64, conditioners=of(*map(str, range(1000))), **options)
    no_label = 4 * 192  # the row that theirs does not have
    assert sum(parameter.numel() for parameter in network.parameters()) == 295_904_454 + no_label


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [("unet_tiny", 1, 8)] + [("unet_small", channels, size) for channels in (1, 3) for size in (28, 32)],
)
def test_configs_start_at_zero_and_keep_the_shape(name, channels, size):
    network = from_yaml(name, channels, size)
    x, t = torch.randn(2, channels, size, size), torch.tensor([0.0, 999.0])
    assert torch.equal(network(x, t), torch.zeros_like(x))
    assert awake(network)(x, t).std() > 0


@pytest.mark.parametrize("name", ["unet_tiny", "unet_small"])
def test_an_image_does_not_see_its_neighbours(name):
    size = {"unet_tiny": 8, "unet_small": 28}[name]
    network = awake(from_yaml(name, 1, size))
    x, t = torch.randn(4, 1, size, size), torch.tensor([0.0, 10.0, 500.0, 999.0])
    whole = network(x, t)
    for i in range(4):
        torch.testing.assert_close(network(x[i : i + 1], t[i : i + 1])[0], whole[i], atol=1e-5, rtol=1e-5)


def test_time_matters():
    network = awake(UNet(1, 1, 8, **SMALL))
    x = torch.randn(1, 1, 8, 8).expand(2, -1, -1, -1)
    a, b = network(x, torch.tensor([0.0, 999.0]))
    assert (a - b).abs().max() > 1e-3


def test_every_parameter_learns():
    network = awake(UNet(1, 2, 8, patch=2, conditioners=of("a", "b", "c"), **(SMALL | {"attention": (2,)})))
    out = network(torch.randn(3, 1, 8, 8), torch.tensor([1.0, 2.0, 3.0]), labelled(torch.tensor([0, 1, -1])))
    out.square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert out.shape == (3, 2, 8, 8)
    assert still == []


def test_patch_is_a_smaller_image_of_more_channels():
    patched, plain = UNet(3, 1, 16, patch=2, **SMALL), UNet(12, 4, 8, **SMALL)
    plain.load_state_dict(awake(patched).state_dict())
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([5.0, 50.0])
    # Channel c, place (i, j) in its patch -> channel 4 c + 2 i + j, and back.
    folded = x.unflatten(2, (8, 2)).unflatten(4, (8, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    got = patched(x, t)
    for k in range(4):
        torch.testing.assert_close(got[:, 0, k // 2 :: 2, k % 2 :: 2], plain.eval()(folded, t)[:, k])


def test_labels():
    network = awake(UNet(1, 1, 8, conditioners=of("a", "b", "c"), **SMALL))
    x, t = torch.randn(1, 1, 8, 8).expand(3, -1, -1, -1), torch.full((3,), 7.0)
    none = network(x, t)
    zero, two, missing = network(x, t, labelled(torch.tensor([0, 2, -1])))
    torch.testing.assert_close(missing, none[2])
    assert (zero - two).abs().max() > 1e-4
    assert (zero - missing).abs().max() > 1e-4

    blind = awake(UNet(1, 1, 8, **SMALL))
    assert torch.equal(blind(x, t, labelled(torch.tensor([0, 2, -1]))), blind(x, t))


@pytest.mark.parametrize("size", [(8, 12), (12, 8), (4, 16)])
@pytest.mark.parametrize("kernels", [True, False])
def test_sides_may_differ(size, kernels):
    """The weights are those of a square, and so is each layer: attention where the shorter side says so."""
    options = SMALL | {"attention": [min(size)], "head_width": 8, "patch": 1}
    torch.manual_seed(0)
    network = awake(UNet(3, 3, size, **options))
    square = awake(UNet(3, 3, min(size), **options))
    square.load_state_dict(network.state_dict())
    for each in network, square:
        use_kernels(each, kernels)
    x, t = torch.randn(2, 3, *size), torch.tensor([3.0, 500.0])
    out = network(x, t)
    assert out.shape == x.shape
    assert torch.equal(out, square(x, t))
    torch.testing.assert_close(out, network.double()(x.double(), t).float(), atol=1e-5, rtol=0)


def test_a_pair_of_equal_sides_is_a_square():
    networks = []
    for size in 8, (8, 8), [8, 8]:
        torch.manual_seed(0)
        networks.append(UNet(1, 1, size, **SMALL).state_dict())
    for other in networks[1:]:
        assert all(torch.equal(weight, other[name]) for name, weight in networks[0].items())


def test_dropout_acts_in_training_only():
    network = awake(UNet(1, 1, 8, dropout=0.5, **SMALL))
    x, t = torch.randn(1, 1, 8, 8), torch.zeros(1)
    assert torch.equal(network(x, t), network(x, t))
    network.train()
    assert not torch.equal(network(x, t), network(x, t))


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (28, {"widths": [32] * 4}, "28 does not divide by 8 .*4 levels.*dataset.size=32.*at most 3 levels"),
        (28, {"widths": [32] * 3, "patch": 2}, "28 does not divide by 8 .*patch 2.*dataset.size=32.*at most 2 levels"),
        (7, {"widths": [32] * 2}, "7 does not divide by 2 .*dataset.size=8.*at most 1 level "),
        ((8, 12), {"widths": [32] * 4}, "8x12 does not divide by 8 .4 levels.: use a network with at most 3 levels"),
        ((8, 9), {"widths": [32], "patch": 2}, "8x9 does not divide by 2 .1 levels, patch 2.: pad the data, or use a"),
        ((8, 16), {"widths": [32, 32], "attention": [16]}, r"attention at \[16\] .* at size 8x16 .*\[8, 4\]"),
        (9, {"widths": [32], "patch": 2}, "9 does not divide by 2 .*dataset.size=10, which pads$"),
        (32, {"widths": [32, 32], "attention": [8]}, r"attention at \[8\].*\[32, 16\]"),
        (32, {"widths": [32, 32], "attention": [32], "patch": 2}, r"attention at \[32\].*\[16, 8\]"),
        (32, {"widths": [32, 40], "attention": []}, "40 does not divide into 32 groups.*network.norm_groups"),
        (32, {"widths": [64, 64], "attention": [16], "head_width": 48}, "64 .*heads of 48.*network.head_width=null"),
        (32, {"widths": [64, 96], "attention": [], "head_width": 64}, "96 .*heads of 64"),  # in the middle
        (32, {"widths": [33, 66], "attention": [], "norm_groups": 33}, "first width.*is 33, which is odd"),
        (32, {"widths": [32, 32], "attention": [], "heads": 4, "head_width": 8}, "heads=4 .*head_width=8: set one"),
        (32, {"widths": [32, 48], "attention": [], "heads": 5, "norm_groups": 8}, "48 .* network.heads=5"),
    ],
)
def test_refusals_come_before_any_layer(size, options, message, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a layer was built")

    monkeypatch.setattr(torch.nn.Module, "__init__", refuse)
    with pytest.raises(UserError, match=message) as caught:
        UNet(1, 1, size, **options)
    assert "\n" not in str(caught.value)
