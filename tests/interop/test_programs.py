"""`convert.py from=...` for files of weights: the program is recognised, takes the options, and its model samples."""

import pytest
import torch

from diffusion.ground.errors import UserError
from diffusion.interop import programs
from diffusion.runs import checkpoint
from tests.helpers.commands import command
from tests.interop.openai_unet import random_peer

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
