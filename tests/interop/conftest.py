import json
import shutil

import pytest

from diffusion.interop.foreign import Foreign
from diffusion.runs import checkpoint
from diffusion.runs import compose as configs


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a pipeline of diffusers."""
    from tests.interop.diffusers_models import pipeline

    folder = tmp_path_factory.mktemp("saved")
    pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def changed(saved, tmp_path):
    """A copy of the folder whose JSON files say what is given."""

    def change(file, **values):
        shutil.copytree(saved, tmp_path / "copy")
        path = tmp_path / "copy" / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return tmp_path / "copy"

    return change


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
