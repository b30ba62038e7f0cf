"""From a node of the config to an object: what a key says arrives."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from diffusion import schedule
from diffusion.ground.errors import Notice, UserError
from diffusion.runs import build
from diffusion.runs.compose import compose
from diffusion.runs.groups import choice
from tests.helpers.commands import command, tiny

DATASETS = ["digits", "mnist", "fashion_mnist", "cifar10", "image_folder"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_data_set_has_the_name_it_is_given(dataset):
    node = choice("dataset", dataset)
    path = None if dataset == "digits" else "here"
    assert build.instantiate({**node, "path": path}).name == dataset
    assert build.instantiate({**node, "path": path, "name": "mine"}).name == "mine"


def test_a_name_is_dropped_nowhere():
    with pytest.raises(UserError, match=r"unexpected keyword argument 'name'; it takes steps, times, eta"):
        build.instantiate({**choice("sampler", "ddim"), "name": "mine"})


@pytest.mark.filterwarnings("ignore")
def test_a_renamed_data_set_is_called_so_in_the_run_folder_the_manifest_and_messages(tmp_path, capsys):
    line = tiny("dataset.name=mine", "trainer.max_steps=1", "callbacks.preview.n=0", f"run.root={tmp_path}")
    done = command("train", *line, capsys=capsys)
    assert done.folder.parent == tmp_path / "mine"
    assert json.loads((done.folder / "manifest.json").read_text())["data"]["name"] == "mine"
    refused = command("train", *line[:-1], "dataset.batch_size=5000", f"run.root={tmp_path / 'none'}", capsys=capsys)
    assert "error: mine: dataset.batch_size=5000 is more than the 1500 training images" in refused.err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", ""])
def test_a_name_is_that_of_a_folder(name):
    with pytest.raises(UserError, match=f"dataset.name={name}: expected the name of a folder"):
        build.instantiate({**choice("dataset", "digits"), "name": name})


@pytest.mark.parametrize("seed", [0, 2**64 - 1, 2**64, 10**30])
def test_any_seed_makes_a_network(seed):
    config = OmegaConf.to_container(compose("train", tiny(f"seed={seed}")), resolve=True)
    assert build.model(config).seed == seed


@pytest.mark.parametrize(
    ("changed", "steps"),
    [({}, 20), ({"steps": 7}, 7), ({"steps": None}, None), ({"times": [20, 5, 0]}, 2), ({"times": "karras"}, 20)],
)
def test_a_default_number_of_steps_is_at_most_that_of_the_schedule(changed, steps, recwarn):
    node = {**choice("sampler", "ddim"), **changed}
    assert build.with_steps_of(schedule.linear(20), node, "callbacks.preview.sampler") == {**node, "steps": steps}
    reported = [str(each.message) for each in recwarn if each.category is Notice]
    lowered = [f"callbacks.preview.sampler.steps={steps} instead of the usual 50: there are no more"]
    assert reported == lowered * (steps != node["steps"])
    assert len(build.instantiate({**node, "steps": steps}).times(schedule.linear(20))) == (steps or 20) + 1


@pytest.mark.parametrize("node", [{"_target_": "x"}, {"_target_": "x", "steps": None}, {"_target_": "x", "steps": 7}])
def test_a_sampler_may_have_no_steps_or_no_times(node):
    assert build.with_steps_of(schedule.linear(20), node) == node


@pytest.mark.filterwarnings("ignore")
def test_a_short_schedule_with_the_defaults_gives_no_notice(tmp_path, capsys):
    line = [
        word
        for word in tiny("schedule.T=20", "trainer.max_steps=1")
        if not word.startswith("callbacks.preview.sampler")
    ]
    done = command(
        "train", *line, "sampler=ddim", "sampler.times=[20,9,0]", f"run.dir={tmp_path / 'run'}", capsys=capsys
    )
    assert done.code == 0, done.err
    config = json.loads((done.folder / "manifest.json").read_text())["config"]
    assert config["sampler"]["steps"] == 2
    assert "note: callbacks.preview.sampler.steps=20 instead of the usual 50" in done.err
    assert "given" not in config
    drawn = command("sample", f"ckpt={done.folder}", "n=1", "sampler=ddim", f"output={tmp_path / 'out'}", capsys=capsys)
    assert drawn.code == 0, drawn.err
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["sampler"]["steps"] == 20


@pytest.mark.filterwarnings("ignore")
def test_what_is_clipped_in_training_is_a_key_of_its_own(tmp_path, capsys):
    """The weights depend on what the network is shown of itself, and not on how samples are clipped."""

    def weights(name, *given):
        line = tiny("trainer.max_steps=3", "callbacks.preview.n=0", "self_conditioning=true", *given)
        done = command("train", *line, f"run.dir={tmp_path / name}", capsys=capsys)
        assert done.code == 0, done.err
        state = torch.load(done.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        return torch.cat([value.flatten() for value in state.values()])

    usual = weights("usual")
    assert torch.equal(weights("samples", "clipping=none", "self_conditioning_clipping=static"), usual)
    shown = weights("shown", "self_conditioning_clipping=none")
    assert not torch.equal(shown, usual)
    assert torch.equal(weights("both", "clipping=none"), shown)


def test_a_clipping_without_what_it_clips_is_refused(tmp_path, capsys):
    refused = command("train", *tiny("self_conditioning_clipping=none", f"run.dir={tmp_path / 'x'}"), capsys=capsys)
    assert refused.code == 2
    assert "self_conditioning_clipping has no effect: it clips what self_conditioning=true shows" in refused.err
    assert not (tmp_path / "x").exists()
