"""What earlier versions wrote loads for ever: it draws the same images, and a resumed run takes the same steps.

Bit for bit on the kinds of machines on which the code of that time took these steps (`machines` in expected.json), and
within rounding on others.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from diffusion.config.upgrades import FORMAT
from diffusion.ground.errors import UserError
from diffusion.optimization import optimizers
from diffusion.runs import checkpoint
from tests.fixtures.making import digest, drawn, losses
from tests.helpers import machine
from tests.helpers.commands import command, renamed, tiny

FIXTURES = Path(__file__).parent / "fixtures"
RUNS = sorted(str(path.parent.relative_to(FIXTURES)) for path in FIXTURES.glob("*/*/expected.json"))
CONVERTED = sorted(str(path.relative_to(FIXTURES)) for path in FIXTURES.glob("*/converted"))

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order round otherwise
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(request, tmp_path, monkeypatch):
    """A copy of the run folder, and what it should do."""
    folder = tmp_path / "run"
    shutil.copytree(FIXTURES / request.param, folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)  # where its dataset.path=data leads
    return folder, json.loads((folder / "expected.json").read_text())


@pytest.mark.parametrize("name", [*RUNS, *CONVERTED])
def test_it_draws_the_same_images(name):
    with np.load(FIXTURES / name / "images.npz") as images:
        stored = {key: images[key] for key in images}
    for weights in dict.fromkeys(key.partition("_")[2] for key in stored):
        source = FIXTURES / name if name in RUNS else FIXTURES / name / "model.ckpt"
        for sampler, images in drawn(source, float(weights) if weights[0].isdigit() else weights):
            np.testing.assert_allclose(images, stored[f"{sampler}_{weights}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CONVERTED)
def test_a_converted_file_is_read_again(name, tmp_path, capsys):
    file = FIXTURES / name / "model.safetensors"
    done = command("convert", f"from={file}", f"output={tmp_path / 'x.ckpt'}", capsys=capsys)
    assert done.code == 0, done.err
    with np.load(FIXTURES / name / "images.npz") as stored:
        for sampler, images in drawn(tmp_path / "x.ckpt", "ema"):
            np.testing.assert_allclose(images, stored[f"{sampler}_ema"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("run", RUNS, indirect=True)
def test_a_resumed_run_takes_the_steps_it_would_have_taken(run, capsys):
    folder, expected = run
    overrides = renamed(expected["words"])
    done = command("train", *overrides, f"run.dir={folder}", "resume=auto", capsys=capsys)
    assert done.code == 0, done.err
    steps = losses(folder, expected["step"])
    np.testing.assert_allclose(steps, expected["losses"], rtol=1e-4)
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    norms = [value.double().norm().item() for value in weights.values()]  # in their order: some have new names
    assert norms == pytest.approx([*expected["weights_norms"].values()], rel=1e-4, abs=1e-6)
    if (here := expected["machines"].get(machine.kind())) is not None:
        assert steps == here["losses"]
        assert digest(weights) == here["weights_sha256"]


def test_what_is_written_has_the_number_of_its_format(tmp_path, capsys):
    done = command(
        "train", *tiny("trainer.max_steps=1", "callbacks.preview.n=0"), f"run.dir={tmp_path / 'run'}", capsys=capsys
    )
    assert json.loads((done.folder / "manifest.json").read_text())["format"] == FORMAT
    assert torch.load(done.folder / "checkpoints" / "last.ckpt", weights_only=True)["format"] == FORMAT
    file = command(
        "convert", f"ckpt={done.folder}", "to=safetensors", f"output={tmp_path / 'x.safetensors'}", capsys=capsys
    ).folder
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["diffusion.format"] == str(FORMAT)
    back = command("convert", f"from={file}", f"output={tmp_path / 'x.ckpt'}", capsys=capsys).folder
    assert torch.load(back, weights_only=True)["format"] == FORMAT


def test_the_optimisers_state_is_stored_by_name(tmp_path, capsys):
    """And a checkpoint whose parameters come in another order gives each its own moments."""
    done = command(
        "train", *tiny("trainer.max_steps=2", "callbacks.preview.n=0"), f"run.dir={tmp_path / 'run'}", capsys=capsys
    )
    saved = torch.load(done.folder / "checkpoints" / "last.ckpt", weights_only=True)
    [state] = saved["optimizer_states"]
    assert list(state["state"]) == state["param_groups"][0]["params"] == list(saved["state_dict"])
    shuffled = {**state, "state": dict(reversed(state["state"].items()))}
    shuffled["param_groups"] = [{**state["param_groups"][0], "params": list(reversed(saved["state_dict"]))}]
    names = list(saved["state_dict"])
    one, two = (optimizers.by_position(each, names) for each in (state, shuffled))
    for position, name in enumerate(names):
        for each in (one, two):
            assert each["state"][position]["exp_avg"].shape == saved["state_dict"][name].shape
            assert each["state"][position] is state["state"][name]
    with pytest.raises(UserError, match="of other parameters"):
        optimizers.by_position(state, names[1:])


@pytest.mark.parametrize("number", [FORMAT + 1, "1", None])
def test_a_later_format_is_refused_in_one_line(number, tmp_path):
    contents = torch.load(FIXTURES / CONVERTED[-1] / "model.ckpt", weights_only=True)
    torch.save({**contents, "format": number}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=rf"x.ckpt: format {number}, but this version reads up to {FORMAT}"):
        checkpoint.read(tmp_path / "x.ckpt")
