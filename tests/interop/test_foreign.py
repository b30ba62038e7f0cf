"""Tables of names, checkpoints made of a `Foreign`, which program a file is from, and our own safetensors."""

import json

import pytest
import safetensors.torch
import torch

from diffusion.ground.errors import UserError
from diffusion.interop import foreign, programs
from diffusion.interop import safetensors as ours
from diffusion.interop.foreign import Foreign, rename, unname
from diffusion.runs import checkpoint
from diffusion.runs import compose as configs
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


@pytest.fixture
def model():
    overrides = ["dataset=digits", "network=unet_tiny", "network.widths=[8,16]", "schedule=cosine", "sampler.steps=3"]
    return checkpoint.model_of(
        configs.OmegaConf.to_container(configs.compose("train", overrides), resolve=True), "test"
    )


@pytest.fixture
def theirs(model):
    """A model of another program that says as little as possible."""
    state = model.denoiser.network.state_dict()
    config = {"network": model.config["network"], "dataset": {"channels": 1, "size": 8}}
    return Foreign(config, state, {name: weight + 1 for name, weight in state.items()}, 7)


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


def test_our_safetensors_come_back(model, tmp_path):
    ours.write(model, tmp_path / "model.safetensors")
    assert (
        safetensors.torch.load_file(tmp_path / "model.safetensors").keys() == model.denoiser.network.state_dict().keys()
    )
    foreign.write(programs.read(tmp_path / "model.safetensors"), tmp_path / "made.ckpt")
    back = checkpoint.load(tmp_path / "made.ckpt")
    assert back.config == model.config
    assert all(torch.equal(back.state_dict()[name], weight) for name, weight in model.state_dict().items())
    assert torch.equal(back.sample(2, progress=False), model.eval().sample(2, progress=False))


def test_the_header_is_json_that_every_reader_takes(model, tmp_path):
    ours.write(model, tmp_path / "model.safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        header = file.metadata()["diffusion.config"]
    assert json.loads(header, parse_constant=pytest.fail)["guidance"]["interval"] == [0, "inf"]
    assert programs.read(tmp_path / "model.safetensors").config["guidance"]["interval"] == [0, float("inf")]


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", json.dumps({"network": {"_target_": "os.system"}})])
def test_a_header_that_is_not_ours(tmp_path, text):
    safetensors.torch.save_file({"x": A}, tmp_path / "made.safetensors", {"diffusion.config": text})
    with pytest.raises(UserError):
        foreign.write(programs.read(tmp_path / "made.safetensors"), tmp_path / "made.ckpt")


def test_what_is_of_no_program(model, tmp_path):
    torch.save({"weights": A}, tmp_path / "other.pt")
    safetensors.torch.save_file({"x": A}, tmp_path / "other.safetensors")
    (tmp_path / "empty").mkdir()
    for name in "other.pt", "other.safetensors", "empty":
        with pytest.raises(UserError, match=r"not a model of a known program \(diffusers, safetensors.*\)"):
            programs.read(tmp_path / name)
    with pytest.raises(UserError, match="no such file or folder"):
        programs.read(tmp_path / "nowhere")
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(UserError, match="not a readable file of weights"):
        programs.read(tmp_path / "text.pt")


def test_what_is_ours_already(theirs, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    foreign.write(theirs, tmp_path / "run" / "checkpoints" / "last.ckpt")
    for path in tmp_path / "run", tmp_path / "run" / "checkpoints" / "last.ckpt":
        with pytest.raises(UserError, match=f"already a model of this program; set ckpt={path}"):
            programs.read(path)
