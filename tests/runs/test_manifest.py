"""manifest.json as other programs and `rerun=` read it."""

import json
import math
import subprocess

import pytest
import torch
from omegaconf import OmegaConf

from diffusion.config import registry
from diffusion.ground.errors import UserError
from diffusion.ground.files import read_json
from diffusion.runs import compose, manifest
from tests.helpers.saved import contents

OF_THE_SESSION = {*manifest.OF_THE_SESSION, "given"}


def refuse(word):
    pytest.fail(f"{word} is no JSON")


def repeated(folder, *overrides):
    """The config of a run of these words as `rerun=` has it, and as it was; the manifest is strict JSON."""
    composed = OmegaConf.to_container(compose.compose("train", overrides), resolve=True)
    manifest.write(folder, manifest.describe(composed, data={}), step=0)
    json.loads((folder / manifest.NAME).read_text(), parse_constant=refuse)
    again = OmegaConf.to_container(compose.compose("train", [f"rerun={folder}"]), resolve=True)
    return tuple({key: each[key] for key in each if key not in OF_THE_SESSION} for each in (again, composed))


@pytest.mark.parametrize("infinity", ["inf", ".inf", "+.Inf"])
def test_infinities_in_a_list_and_deep_in_an_object_come_back(tmp_path, infinity):
    overrides = [f"guidance.interval=[2,{infinity}]", "sampler=euler", "sampler.churn_min=0.5"]
    again, before = repeated(tmp_path, *overrides)
    assert again == before
    assert again["guidance"]["interval"] == [2, math.inf]
    assert again["sampler"]["churn_max"] == math.inf


def test_a_default_value_can_be_given(tmp_path):
    again, _ = repeated(tmp_path, "sampler=euler", "sampler.churn_max=.inf")
    assert again["sampler"]["churn_max"] == math.inf
    with pytest.raises(UserError, match=r"sampler\.churn_min=inf: expected a number"):
        compose.compose("train", ["sampler=euler", "sampler.churn_min=inf"])


@pytest.mark.parametrize("name", ["inf", "nan", "-inf", "'nan'"])
def test_names_stay_names(tmp_path, name):
    again, before = repeated(tmp_path, "dataset=image_folder", f"dataset.path={name}", f'dataset.name="{name}"')
    assert again == before
    assert again["dataset"]["path"] == again["dataset"]["name"] == name


def test_a_manifest_of_an_earlier_version_is_read(tmp_path):
    text = '{"config": {"guidance": {"interval": [0, Infinity]}}, "sessions": []}'
    (tmp_path / manifest.NAME).write_text(text)
    assert manifest.read(tmp_path)["config"]["guidance"]["interval"] == [0, math.inf]


def test_differences_are_of_leaves_and_of_whole_objects():
    old = {"a": {"x": 1, "y": [1]}, "s": {"_target_": "m.linear", "T": 9}, "gone": 1}
    new = {"a": {"x": 1, "y": [2]}, "s": {"_target_": "m.cosine", "s": 9}, "came": None}
    found = manifest.differences(old, new)
    assert found == {"a.y": ([1], [2]), "s": ("linear", "cosine"), "gone": (1, None)}
    assert manifest.text(found) == "a.y [1] -> [2], gone 1 -> None, s linear -> cosine"
    assert manifest.differences(old, old) == {}


@pytest.mark.filterwarnings("ignore")
def test_the_manifest_is_complete(start, one_step):
    found = read_json(one_step / "manifest.json")
    trained = {key: node for key, node in found["config"].items() if key not in registry.WIRING}
    assert trained == contents(one_step)["config"]
    assert found["config"].keys() - trained.keys() == {*registry.WIRING}
    assert found["seed"] == 0
    assert found["command"].startswith("train.py dataset=digits network=unet_tiny")
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert (found["data"]["train"], found["data"]["val"]) == (1500, 297)
    assert found["hardware"]["threads"] == torch.get_num_threads()
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=manifest._ROOT, capture_output=True, text=True)
    assert found["git"] is None or found["git"]["commit"] == git.stdout.strip()
