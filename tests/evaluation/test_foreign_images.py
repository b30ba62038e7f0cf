"""Images of a folder and of a npz."""

import pytest

from tests.helpers.commands import command

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_cache")]
FAST = ["features=classifier", "features.steps=50", "features.width=16"]


def test_a_model_and_the_folder_of_its_images_have_the_same_numbers(ckpt, evaluate, tmp_path, capsys):
    [drawn] = evaluate(f"ckpt={ckpt}", "metric=fd", "n=40", "keep_images=true", "seed=3", *FAST)
    [kept] = (tmp_path / "out").glob("images_*/images")
    assert len(list(kept.iterdir())) == 40
    [again] = evaluate(f"images={kept}", "dataset=digits", "metric=fd", *FAST, output=tmp_path / "other")
    assert again["value"] == drawn["value"]
    sample = command("sample", f"ckpt={ckpt}", "n=40", "seed=3", "npz=true", f"output={tmp_path / 's'}", capsys=capsys)
    assert sample.code == 0, sample.err
    npz = tmp_path / "s" / "samples.npz"
    [third] = evaluate(f"images={npz}", "dataset=digits", "metric=fd", *FAST, output=tmp_path / "third")
    assert third["value"] == pytest.approx(drawn["value"], rel=1e-3)
