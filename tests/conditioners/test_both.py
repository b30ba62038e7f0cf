"""Two conditions at once, through the commands."""

import json

import numpy as np
import pytest

import diffusion
from diffusion.ground.errors import UserError
from diffusion.runs import compose as configs
from tests.helpers.commands import command

MODEL = [
    *("dataset=arrays", "space=pixels", "conditioning=[label,vector]", "network=unet_tiny", "network.widths=[8,16]"),
    *("dataset.batch_size=8", "trainer.max_steps=2", "optimizer.lr=1e-3", "logger=none", "strategy=cpu"),
    *("callbacks.preview.n=4", "callbacks.preview.sampler.steps=2"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("both"), np.random.default_rng(0)
    for split, n in (("train", 32), ("val", 8)):
        (root / split).mkdir()
        np.save(root / split / "x.npy", made.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8))
        np.save(root / split / "label.npy", np.arange(n) % 3 - (np.arange(n) == 5))  # one has none
        np.save(root / split / "vector.npy", made.normal(5, 2, (n, 2)).astype(np.float32))
    (root / "classes.txt").write_text("ant\nbee\ncow\n")
    return root


def test_a_label_and_a_vector_are_given_together(folder, tmp_path, capsys):
    run = tmp_path / "run"
    done = command("train", *MODEL, f"dataset.path={folder}", f"run.dir={run}", capsys=capsys)
    assert done.code == 0, done.err
    model = diffusion.load(run)
    assert [*model.denoiser.network.conditioners] == [*model.conditioning] == ["label", "vector"]
    assert np.allclose(model.conditioning["vector"].mean, np.load(folder / "train" / "vector.npy").mean(0), atol=1e-5)
    overrides = [f"ckpt={run}", "n=6", "y=[ant,cow]", "condition.vector=[[5,4],[1,9],[3,3]]", "sampler.steps=2"]
    done = command(
        "sample", *overrides, "sampler=ddim", "guidance.scale=2", f"output={tmp_path / 'out'}", capsys=capsys
    )
    assert done.code == 0, done.err
    described = json.loads((done.folder / "samples.json").read_text())
    assert described["classes"] == ["ant", "cow"]
    assert described["condition"] == {"vector": [[5, 4], [1, 9], [3, 3]]}
    done = command("sample", f"ckpt={run}", "n=1", "y=bee", "sampler=ddim", "sampler.steps=2", capsys=capsys)
    assert "note: condition.vector is not given: the images are drawn without it" in done.err
    drawn = model.sample(2, condition={"label": "bee", "vector": [5.0, 4.0]}, progress=False)
    assert not drawn.equal(model.sample(2, condition={"label": "bee", "vector": [1.0, 9.0]}, progress=False))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vector": [1.0]}, "vector=\\[1.0\\]: expected 2 finite numbers, such as"),
        ({"vector": [[1.0, 2.0]] * 3}, "vector has 3 rows for 2 images: give one for all, or one for each"),
        ({"depth": 1}, "depth=1: this model was trained without it; it takes label, vector"),
        (7, "condition=7: expected a Condition, or a dict"),
    ],
)
def test_invalid_conditions_are_rejected(folder, tmp_path, capsys, given, message):
    run = tmp_path / "run"
    line = [*MODEL, "callbacks.preview.n=0", f"dataset.path={folder}", f"run.dir={run}"]
    assert command("train", *{word.partition("=")[0]: word for word in line}.values(), capsys=capsys).code == 0
    with pytest.raises(UserError, match=message):
        diffusion.load(run).sample(2, condition=given, progress=False)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("conditioning=[label,lable]", "conditioning=lable: no such conditioning"),
        ("conditioning=[]", "expected at least one of label, none, vector, each once"),
        ("conditioning=[label,label]", "each once"),
        ("schedule=[linear,cosine]", "no such schedule"),
        ("conditioning.drop=0.2", "this key is now called conditioning.label.drop"),
        ("conditioning.label.drop=0.2", "conditioning=label has it"),
    ],
)
def test_a_wrong_choice_is_one_line(word, message):
    with pytest.raises(UserError, match=message.replace("[", "\\[")):
        configs.compose("train", [word])
