"""`compile=true`: torch.compile of the network, which changes its speed and nothing else."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.ground.errors import UserError
from diffusion.networks.compilation import compile_network
from tests.helpers.commands import command, tiny

TINY = tiny("network.widths=[4]", "network.norm_groups=2", "network.attention=[]", "network.mid_attention=false")
TINY += ["trainer.log_every_n_steps=1"]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _fresh():
    yield
    torch.compiler.reset()


def succeed(*line, capsys):
    done = command(*line, capsys=capsys)
    assert done.code == 0, done.err
    return done.folder


def test_a_compiled_network_trains_samples_and_is_measured_as_one_that_is_not(tmp_path, capsys):
    folder = {}
    for asked in "false", "true":
        line = ["trainer.max_steps=3", f"run.dir={tmp_path / asked}", f"compile={asked}"]
        run = succeed("train", *tiny(*TINY, "callbacks.preview.n=0"), *line, capsys=capsys)
        folder[asked] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert list(folder["false"]) == list(folder["true"])
    for name, value in folder["false"].items():
        torch.testing.assert_close(folder["true"][name], value, rtol=1e-3, atol=1e-5)
    pixels, values = {}, {}
    for asked in "false", "true":
        common = [f"ckpt={tmp_path / 'true'}", f"compile={asked}"]
        out = f"output={tmp_path / f'samples_{asked}'}"
        drawn = succeed("sample", *common, "n=2", "sampler=ddim", "sampler.steps=3", out, capsys=capsys)
        pixels[asked] = [np.asarray(Image.open(file)).astype(int) for file in sorted((drawn / "images").glob("*"))]
        out = f"output={tmp_path / f'numbers_{asked}'}"
        rows = succeed("evaluate", *common, "metric.bpd.n=4", "metric.bpd.steps=2", out, capsys=capsys)
        values[asked] = json.loads(rows.read_text())["value"]
    assert abs(np.array(pixels["true"]) - np.array(pixels["false"])).max() <= 1
    assert values["true"] == pytest.approx(values["false"], rel=1e-4)


def test_the_network_is_compiled_in_place(monkeypatch):
    network = torch.nn.Linear(2, 2)
    names = list(network.state_dict())
    calls = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: calls.append(function) or function)
    compile_network(network, torch.device("cpu"))
    assert len(calls) == 2, "what is tried, and the network"
    assert list(network.state_dict()) == names


def test_a_compiler_that_does_not_work_is_one_line(monkeypatch):
    def broken(function, **_):
        raise RuntimeError("\nno compiler\nat all")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UserError, match=r"compile=true: torch\.compile does not work here \(no compiler\)"):
        compile_network(torch.nn.Linear(2, 2), torch.device("cpu"))
