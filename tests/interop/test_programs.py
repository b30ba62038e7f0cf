"""`convert.py from=...` for files of weights: the program is recognised, takes the options, and its model samples."""

import pytest
import safetensors.torch
import torch

from diffusion.ground.errors import UserError
from diffusion.interop import foreign, programs
from diffusion.runs import checkpoint
from tests.helpers.commands import command
from tests.interop.openai_unet import random_peer

A = torch.arange(2.0)
OPENAI = {"channels": 1, "out": 2, "width": 32, "mults": (1, 2), "layers": 1, "rates": (2,), "heads": 2}
OPTIONS = {"size": 8, "schedule": "cosine", "T": 20, "heads": 2}


@pytest.fixture
def openai_file(tmp_path):
    torch.save(random_peer(**OPENAI).state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_convert_makes_a_checkpoint_that_samples(openai_file, tmp_path, capsys):
    arguments = [f"{name}={value}" for name, value in OPTIONS.items()]
    done = command("convert", f"from={openai_file}", *arguments, capsys=capsys)
    assert (done.code, done.folder) == (0, tmp_path / "model.ckpt"), done.err
    model = checkpoint.load(tmp_path / "model.ckpt")
    assert model.denoiser.schedule.T == 20
    assert model.sample(2).shape == (2, 1, 8, 8)


def test_lucidrains_files_are_recognised(tmp_path):
    peers = pytest.importorskip("denoising_diffusion_pytorch")
    peer = peers.GaussianDiffusion(peers.Unet(8, dim_mults=(1, 2), self_condition=True), image_size=8, timesteps=20)
    torch.save({"step": 3, "model": peer.state_dict(), "ema": None}, tmp_path / "model-1.pt")
    foreign = programs.read(tmp_path / "model-1.pt", {"size": 8})
    assert foreign.step == 3
    assert foreign.config["self_conditioning"]


def test_an_option_of_another_program_is_refused(tmp_path, openai_file):
    torch.save({"model.init_conv.weight": torch.zeros(1)}, tmp_path / "lucid.pt")
    with pytest.raises(UserError, match=r"heads= does not apply to a model of lucidrains.*its options: size"):
        programs.read(tmp_path / "lucid.pt", {"heads": 2})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["size=8"], "the weights do not determine schedule, T, heads"),
        (["schedule=sigmoid"], "schedule=sigmoid: expected linear or cosine"),
        (["order=new"], "order=new: expected heads_first or qkv_first"),
        (["ckpt=there"], "expected either from="),
    ],
)
def test_mistakes_are_one_line(arguments, message, openai_file, capsys):
    done = command("convert", f"from={openai_file}", *arguments, capsys=capsys)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


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
