"""Metrics of images by the real command: of a model, of a folder, of a npz, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.commands import command
from tests.helpers.picture_folders import write

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_cache")]
FAST = ["features=classifier", "features.steps=50", "features.width=16"]


def test_several_metrics_judge_the_same_images(ckpt, evaluate):
    names = ["fd", "kid", "mind", "prdc", "is", "memorisation"]
    rows = evaluate(f"ckpt={ckpt}", f"metric=[{','.join(names)}]", "n=40", *FAST)
    assert sorted(row["metric"] for row in rows) == sorted(names)
    for row in rows:
        assert row["protocol"]["n"] == 40
        assert row["protocol"]["reference"]["n"] == 1500
        assert row["protocol"]["sampling"]["sampler"]["steps"] == 3
        assert np.isfinite(row["value"])


def test_interrupted_sampling_continues_and_images_are_removed(ckpt, evaluate, tmp_path, monkeypatch, capsys):
    from diffusion.ground import images

    line = [f"ckpt={ckpt}", "metric=mind", "n=12", "batch_size=4", *FAST]
    [whole] = evaluate(*line)
    assert not list((tmp_path / "out").glob("images_*"))
    write_png, drawn = images.write_png, []

    def interrupted(path, image):
        if len(drawn) == 5:
            raise KeyboardInterrupt
        drawn.append(path)
        return write_png(path, image)

    with monkeypatch.context() as patch:
        patch.setattr(images, "write_png", interrupted)
        assert command("evaluate", *line, f"output={tmp_path / 'cut'}", capsys=capsys).code == 130
    [kept] = (tmp_path / "cut").glob("images_*/images")
    assert len(list(kept.iterdir())) == 5
    [row] = evaluate(*line, output=tmp_path / "cut")
    assert row["value"] == pytest.approx(whole["value"], rel=1e-3)


def test_real_images_are_near_and_noise_is_far(digits, evaluate, tmp_path):
    val = digits.split("val")[0]
    noise = torch.randint(0, 256, val.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = []
    for name, images in {"val": val, "noise": noise}.items():
        rows = evaluate(
            f"images={write(tmp_path / name, images)}", "dataset=digits", "metric=[fd,mind,prdc]", *FAST,
            output=tmp_path / f"of {name}",
        )  # fmt: skip
        values.append({row["metric"]: row["value"] for row in rows})
    near, far = values
    assert far["fd"] > 5 * near["fd"]
    assert far["mind"] > 5 * near["mind"]
    assert far["prdc"] < 0.5 * near["prdc"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("images={here}/empty dataset=digits metric=fd", "no images in this folder"),
        ("images={here}/none dataset=digits metric=fd", "no such folder or .npz file"),
        ("images={here}/small metric=fd", "needs a dataset to compare with"),
        ("images={here}/small dataset=digits metric=bpd", "metric=bpd measures a model, not images"),
        ("images={here}/large dataset=digits metric=fd", "has 9x9 pixels of 1 channels; the dataset has 8x8 of 1"),
        ("images={here}/deep dataset=digits metric=fd", "expected 8 bits per channel, without transparency"),
        ("images={here}/broken dataset=digits metric=fd", "not a readable image"),
        (
            "images={here}/small dataset=digits metric=fd features=pixels",
            "4 images are fewer than twice the 64",
        ),
        ("images={here}/small dataset=digits metric=is features=pixels", "needs features with classes"),
        ("images={here}/small dataset=digits metric=prdc features=pixels", "needs more than k=5 images"),
        ("images={here}/small dataset=digits metric=kid features=inception", "features=inception needs the file"),
        ("images={here}/small dataset=digits metric=mind sampler=ddim", "sampler has no effect"),
        ("images={here}/small dataset=digits metric=mind keep_images=true", "keep_images has no effect"),
        (
            "images={here}/small dataset=digits metric=mind reference={here}/x.npz features=pixels",
            "has 3 features, but",
        ),
        (
            "images={here}/small dataset=digits metric=mind reference=some",
            "reference=some: expected train, val",
        ),
        ("metric=fd", "ckpt is missing"),
        ("ckpt={here}/model.ckpt metric=fd n=50 features=pixels", "50 images are fewer than twice"),
        ("ckpt={here}/model.ckpt metric=bpd features=pixels", "features has no effect: no metric evaluates images"),
        ("ckpt={here}/model.ckpt metric.n=5", "this key is now called metric.bpd.n; use metric.bpd.n=5"),
    ],
)
def test_a_mistake_is_one_line(given, message, ckpt, folder, tmp_path, capsys, digits):
    if not (folder / "empty").exists():
        for name in "empty", "deep", "broken":
            (folder / name).mkdir()
        write(folder / "small", digits.split("val")[0][:4])
        write(folder / "large", torch.zeros(2, 1, 9, 9, dtype=torch.uint8))
        Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "deep" / "0.png")
        (folder / "broken" / "0.png").write_bytes(b"no picture")
        np.savez(folder / "x.npz", mu=np.zeros(3), sigma=np.eye(3))
    given = [word.format(here=folder) for word in given.split()]
    done = command("evaluate", *given, f"output={tmp_path / 'out'}", capsys=capsys)
    assert done.code == 2
    [error] = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert message in error
    assert not (tmp_path / "out" / "results.jsonl").exists()
