"""guidance=auto through the commands: which model is the weaker one, and what cannot be."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffusion
from diffusion.ground.errors import UserError
from diffusion.guidance import Auto
from diffusion.networks.kernels.choice import use_kernels
from diffusion.runs import checkpoint
from tests.helpers.commands import command, renamed, tiny
from tests.helpers.random_model import random_model

FIXTURES = Path(__file__).parent / "fixtures" / "format_0"
SHORT = ["n=2", "sampler=ddim", "sampler.steps=3"]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def power(tmp_path_factory):
    """A run of ema=power at step 8, with a snapshot of step 4."""
    return shutil.copytree(FIXTURES / "power", tmp_path_factory.mktemp("power") / "run")


@pytest.fixture
def sample(power, tmp_path, capsys):
    def run(*given, ckpt=power):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        done = command("sample", f"ckpt={ckpt}", *SHORT, *given, f"output={out}", capsys=capsys)
        images = [np.asarray(Image.open(file)) for file in sorted((out / "images").glob("*.png"))]
        return done, images, json.loads((out / "samples.json").read_text()) if images else {}

    return run


def test_the_weaker_model_may_be_other_weights_an_earlier_snapshot_or_another_checkpoint(sample, power):
    _, plain, _ = sample()
    drawn, digests = [], set()
    for given in (
        ["guidance.weights=raw"],
        ["guidance.weights=power_0.1"],
        ["guidance.weights=0.08"],
        ["guidance.step=4"],
        ["guidance.step=4", "guidance.weights=power_0.05"],
        [f"guidance.ckpt={power}", "guidance.weights=raw", "guidance.interval=[0,500]"],
    ):
        done, images, described = sample("guidance=auto", "guidance.scale=20", *given)
        assert done.code == 0, done.err
        drawn.append(np.stack(images))
        digests.add(described["guidance"]["weaker_sha256"])
    assert len(digests) == 5  # the first and the last are the same weights
    changed = [bool((each != np.stack(plain)).any()) for each in drawn]
    assert changed == [True, False, True, True, True, True]  # the second is the one that is guided


def test_at_scale_1_the_images_are_those_without_guidance(sample):
    _, plain, _ = sample()
    done, images, _ = sample("guidance=auto", "guidance.scale=1")
    assert done.code == 0
    assert all(map(np.array_equal, plain, images))
    done, *_ = sample("guidance=auto", "guidance.scale=1", "guidance.step=4")
    assert (done.code, "guidance.step has no effect: guidance.scale=1 is no guidance" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["guidance.step=5"], "step=5: no such snapshot in "),
        (["guidance.step=4", "guidance.weights=raw"], "guidance.step=4 selects averaged weights"),
        (["guidance.weights=half_life_5"], "weights=half_life_5: "),
        (["guidance.ckpt=nowhere"], "nowhere: no such file or run folder"),
        ([f"guidance.ckpt={FIXTURES / 'label'}"], "is a model with another schedule, image shape or scale"),
    ],
)
def test_an_invalid_weaker_model_is_one_line(sample, given, message):
    done, images, _ = sample("guidance=auto", *given)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not images


@pytest.mark.parametrize(
    ("own", "other", "refused"),
    [(["cat", "dog"], ["dog", "cat"], True), (["cat", "dog"], ["cat"], True), (["cat", "dog"], None, False)],
)
def test_a_guide_knows_the_same_classes_or_none(sample, tmp_path, own, other, refused):
    ckpt, guide = (random_model(tmp_path / f"{k}.ckpt", classes=each) for k, each in enumerate((own, other)))
    done, images, _ = sample("guidance=auto", f"guidance.ckpt={guide}", "guidance.weights=raw", "y=dog", ckpt=ckpt)
    assert (done.code, not images) == ((2, True) if refused else (0, False))
    assert ("was trained with another label" in done.err) == refused


def test_a_training_shows_guided_previews_and_stores_its_own_weights_alone(power, sample, tmp_path, capsys):
    plain = renamed(json.loads((FIXTURES / "power" / "expected.json").read_text())["words"])
    changed = ("ema", "trainer.max", "callbacks.preview.n")
    line = [*dict.fromkeys(word for word in plain if not word.startswith(changed))]
    line = [word.replace("compile=false", "kernels=off") for word in line]
    line += ["guidance=auto", "trainer.max_steps=2", "callbacks.preview.n=2", "callbacks.preview.sampler.steps=2"]
    refused = command("train", *line, f"run.dir={tmp_path / 'refused'}", capsys=capsys)
    assert refused.code == 2
    assert "guidance needs a weaker model, but has none" in refused.err
    assert not (tmp_path / "refused").exists()
    done = command("train", *line, f"guidance.ckpt={power}", f"run.dir={tmp_path / 'run'}", capsys=capsys)
    assert done.code == 0, done.err
    model = diffusion.load(done.folder)
    assert model.guidance.weaker is not None
    assert not [name for name in model.state_dict() if not name.startswith("denoiser.network.")]
    done, _, described = sample(ckpt=tmp_path / "run")
    assert done.code == 0, done.err
    assert described["guidance"]["class"] == "Auto"


def test_a_guide_uses_kernels_where_the_model_does(power):
    for on in True, False:
        model = diffusion.load(power)
        use_kernels(model, on)
        guide = checkpoint.guidance({"_target_": "diffusion.guidance.Auto", "scale": 2.0, "ckpt": str(power)}, model)
        assert guide.weaker.denoiser.network.middle[0].kernels == on


def test_a_model_whose_guide_has_moved_loads_and_reports_it_when_sampled(power, tmp_path, capsys):
    moved = shutil.copytree(power, tmp_path / "moved")
    line = tiny("guidance=auto", f"guidance.ckpt={moved}", "callbacks.preview.n=0", "trainer.max_steps=1")
    shape = ["network.widths=[4]", "network.norm_groups=2", "network.attention=[]", "network.mid_attention=false"]
    line = [word for word in line if not word.startswith("network.widths")] + [*shape, "schedule=cosine"]
    done = command("train", *line, f"run.dir={tmp_path / 'run'}", capsys=capsys)
    assert done.code == 0, done.err
    shutil.rmtree(moved)
    model = diffusion.load(done.folder)
    with pytest.raises(UserError, match="has none"):
        model.sample(1, progress=False)
    assert model.sample(1, guidance=Auto(1.0), progress=False).shape == (1, 1, 8, 8)


def test_overrides_of_a_tiny_training_accept_the_choice(tmp_path, capsys):
    done = command(
        "train",
        *tiny("guidance=auto", "callbacks.preview.n=0", "trainer.max_steps=1"),
        f"run.dir={tmp_path / 'x'}",
        capsys=capsys,
    )
    assert done.code == 0, done.err
