"""Lines that a command says of what is allowed, but perhaps not meant."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import clipping
from diffusion.conditioners.condition import PREVIOUS
from diffusion.conditioners.self_conditioning import Previous
from diffusion.ground.errors import Notice
from diffusion.guidance import ClassifierFree
from diffusion.lit import notices
from tests.helpers.commands import command, tiny
from tests.helpers.labels import of

pytestmark = pytest.mark.filterwarnings("ignore")
LABEL = Path(__file__).parent.parent / "fixtures" / "format_0" / "label"  # guidance.scale=1.5, clipping=dynamic


def reported(done):
    return [line.removeprefix("note: ") for line in done.err.splitlines() if line.startswith("note: ")]


def of_training(**changed):
    usual = {"clip": clipping.Static(), "usual": clipping.Static(), "guidance": ClassifierFree(1.0), "conditioning": {}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        notices.of_training(**usual | changed)
    assert all(each.category is Notice for each in caught)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize(
    ("changed", "start"),
    [
        ({}, None),
        ({"clip": clipping.Dynamic()}, None),
        ({"conditioning": {PREVIOUS: Previous()}}, None),
        ({"conditioning": of("a", "b", drop=0)}, None),
        ({"conditioning": of("a", "b"), "guidance": ClassifierFree(2.0)}, None),
        (
            {"conditioning": {PREVIOUS: Previous()}, "clip": clipping.Dynamic(0.9)},
            "self_conditioning=true: in training, too, the network",
        ),
        (
            {"conditioning": {PREVIOUS: Previous()}, "clip": clipping.Unclipped()},
            "self_conditioning=true: in training, too, the network",
        ),
        ({"conditioning": of("a", "b", drop=1)}, "conditioning.label.drop=1: the label is always dropped in training"),
        ({"guidance": ClassifierFree(2.0)}, "guidance.scale=2 has no effect: the network has no condition"),
        (
            {"conditioning": of("a", "b", drop=0), "guidance": ClassifierFree(2.5)},
            "guidance.scale=2.5 compares with images without a class",
        ),
    ],
)
def test_a_training_that_may_not_be_meant_is_noticed(changed, start):
    found = of_training(**changed)
    assert [text[: len(start)] for text in found] == [start] if start else not found


@pytest.mark.parametrize(
    ("given", "start"),
    [
        ([], None),
        (
            ["self_conditioning=true", "clipping=dynamic"],
            "self_conditioning=true: in training, too, the network receives",
        ),
        (["self_conditioning=true", "clipping=dynamic", "self_conditioning_clipping=static"], None),
        (["self_conditioning=true", "self_conditioning_clipping=none"], "self_conditioning=true: in training, too"),
        (
            ["conditioning=label", "conditioning.label.drop=0", "guidance.scale=2"],
            "guidance.scale=2 compares with images without",
        ),
        (["guidance.scale=2"], "guidance.scale=2 has no effect"),
    ],
)
def test_train_reports_it_in_one_line_and_continues(given, start, tmp_path, capsys):
    line = tiny("trainer.max_steps=1", "callbacks.preview.n=0", "schedule.T=50", *given)
    done = command("train", *line, f"run.dir={tmp_path / 'run'}", capsys=capsys)
    assert done.code == 0
    found = reported(done)
    assert [text[: len(start)] for text in found] == [start] if start else not found


def test_a_schedule_that_does_not_reach_noise_is_reported_in_one_line(tmp_path, capsys):
    line = tiny("trainer.max_steps=1", "callbacks.preview.n=0", "schedule.beta_end=0.001")
    done = command("train", *line, f"run.dir={tmp_path / 'run'}", capsys=capsys)
    [text] = reported(done)
    assert text.startswith("alpha_bar_T = ")
    assert "Warning" not in done.err


def test_sample_reports_that_no_class_was_given(tmp_path, capsys):
    run = shutil.copytree(LABEL, tmp_path / "run")
    line = [f"ckpt={run}", "n=2", "sampler.steps=2"]
    assert reported(command("sample", *line, capsys=capsys)) == ["y is not given: the images are drawn without a class"]
    assert reported(command("sample", *line, "y=3", f"output={tmp_path / 'out'}", capsys=capsys)) == []


def of_size(size, own):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        notices.of_size("mine", size, own)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize(("size", "own"), [(32, 28), (28, 28), (42, 28), (16, 28), (256, None), (256, 200)])
def test_a_size_near_the_datas_own_gives_no_notice(size, own):
    assert of_size(size, own) == []


def test_a_size_far_above_the_datas_own_is_noticed():
    assert of_size(256, 28) == [
        "dataset.size=256, but the images of mine are 28 pixels wide: padding or upscaling costs time and adds "
        "no information"
    ]


def test_enlarged_images_of_a_folder_are_reported(tmp_path, capsys):
    for k in range(8):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        values = np.random.default_rng(k).integers(0, 255, (11 if k else 400, 40), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "pictures" / f"{k}.png")
    (tmp_path / "pictures" / "broken.png").write_bytes(b"")
    line = ["dataset=image_folder", f"dataset.path={tmp_path / 'pictures'}", "dataset.channels=1", "dataset.size=24"]
    line += [
        f"dataset.cache={tmp_path / 'cache'}",
        "dataset.batch_size=2",
        "trainer.max_steps=1",
        "callbacks.preview.n=0",
    ]
    line += ["network.attention=[]", "network.mid_attention=false", "dataset.val_fraction=0.3"]
    done = command("train", *tiny(*line), f"run.dir={tmp_path / 'run'}", capsys=capsys)
    assert done.code == 0, done.err
    [text] = reported(done)
    assert text.startswith("dataset.size=24, but the images of image_folder are 11 pixels wide")
