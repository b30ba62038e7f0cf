"""Tables of names, and checkpoints made of a `Foreign`."""

import pytest
import torch

from diffusion.ground.errors import UserError
from diffusion.interop import foreign
from diffusion.interop.foreign import Foreign, rename, unname
from diffusion.runs import checkpoint
from diffusion.runs.groups import choice

A, B, C = torch.arange(2.0), torch.arange(2.0, 4), torch.zeros(1)
TABLE = {"q": "qkv", "k": "qkv", "v": "qkv", "bias": "b"}


def test_names_both_ways():
    theirs = {"bias": C, "v": A, "k": B, "q": A + 10}
    renamed = rename(theirs, TABLE)
    assert renamed.keys() == {"qkv", "b"}
    assert renamed["qkv"].tolist() == [10, 11, 2, 3, 0, 1]
    back = unname(renamed, TABLE)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


def test_names_that_are_missing_or_left_over():
    with pytest.raises(UserError, match=r"^weights are missing: bias, k, q and 1 more$"):
        rename({}, TABLE)
    with pytest.raises(UserError, match=r"^weights that this network does not have: x, y$"):
        rename({"x": A, "y": A}, {})


def test_a_checkpoint_of_it(theirs, tmp_path):
    foreign.write(theirs, tmp_path / "made.ckpt")
    contents = checkpoint.read(tmp_path / "made.ckpt")
    assert contents["global_step"] == 7
    assert contents["config"]["dataset"]["_target_"] == "diffusion.data.image_folder.ImageFolder"
    assert contents["config"]["schedule"] == choice("schedule", "linear")
    for which, weights in ("raw", theirs.weights), ("ema", theirs.ema):
        loaded = checkpoint.load(tmp_path / "made.ckpt", which).denoiser.network.state_dict()
        assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


def test_one_set_of_weights_is_both_and_stored_once(theirs, tmp_path):
    foreign.write(theirs, tmp_path / "two.ckpt")
    foreign.write(Foreign(theirs.config, theirs.weights), tmp_path / "one.ckpt")
    for which in "raw", "ema":
        loaded = checkpoint.load(tmp_path / "one.ckpt", which).denoiser.network.state_dict()
        assert torch.equal(loaded["conv_in.weight"], theirs.weights["conv_in.weight"])
    assert (tmp_path / "one.ckpt").stat().st_size < 0.7 * (tmp_path / "two.ckpt").stat().st_size


def test_weights_of_another_network_make_no_checkpoint(theirs, tmp_path):
    name = "conv_in.weight"
    for weights, message in (
        ({}, "do not fit the network: conv_in.bias, .* only in one"),
        (theirs.weights | {name: torch.zeros(8, 3, 3, 3)}, r"conv_in.weight has the shape \[8, 3, 3, 3\], .*\[8, 1,"),
    ):
        with pytest.raises(UserError, match=message):
            foreign.write(Foreign(theirs.config, weights), tmp_path / "made.ckpt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes", [{"network": {"_target_": "os.system"}}, {"network": 3}, {"schedule": {"T": "x"}}])
def test_a_config_that_builds_nothing(theirs, tmp_path, changes):
    with pytest.raises(UserError):
        foreign.write(Foreign(theirs.config | changes, theirs.weights), tmp_path / "made.ckpt")
