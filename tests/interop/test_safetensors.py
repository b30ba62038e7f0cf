"""Our own safetensors."""

import json

import pytest
import safetensors.torch
import torch

from diffusion.ground.errors import UserError
from diffusion.interop import foreign, programs
from diffusion.interop import safetensors as ours
from diffusion.runs import checkpoint

A = torch.arange(2.0)


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
