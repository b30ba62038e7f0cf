"""A classifier of the data set itself: trained once, kept, and the same again."""

import pytest
import torch

from diffusion.data.digits import Digits
from diffusion.evaluation.features.classifier import Classifier
from diffusion.ground.errors import UserError

FAST = {"width": 16, "steps": 60}


def test_a_classifier_learns_is_kept_and_repeats(data, cache, capsys):
    x = data.split("val")[0]
    first = Classifier(**FAST).extractor(data)
    assert "trained once on the 1,500 training images of Digits" in capsys.readouterr().out
    assert first.recipe["accuracy"] > 0.6
    [file] = cache.iterdir()
    stamp = file.stat().st_mtime_ns
    again = Classifier(**FAST).extractor(data)
    assert "trained" not in capsys.readouterr().out
    assert file.stat().st_mtime_ns == stamp
    assert again.recipe == first.recipe
    assert torch.equal(again(x).features, first(x).features)
    file.unlink()
    anew = Classifier(**FAST).extractor(data)
    assert anew.recipe["weights"] == first.recipe["weights"], "a seed gives the same weights again"
    assert Classifier(**FAST, seed=1).extractor(data).recipe["weights"] != first.recipe["weights"]
    found = first(x)
    assert found.features.shape == (297, 16)
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(297, dtype=torch.float64))


def test_a_damaged_classifier_is_one_line(data, cache):
    Classifier(**FAST).extractor(data)
    [file] = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"is damaged .*: remove it to train it again"):
        Classifier(**FAST).extractor(data)


def test_a_dataset_without_labels_gets_a_suggestion(data, monkeypatch):
    monkeypatch.setattr(Digits, "classes", None)
    with pytest.raises(UserError, match="features=classifier needs labels, but Digits has none: use features=pix"):
        Classifier().extractor(data)


def test_features_do_not_depend_on_what_else_is_embedded(data):
    x = data.split("train")[0][:130]
    extractor = Classifier(**FAST).extractor(data)
    torch.testing.assert_close(extractor(x).features[:64], extractor(x[:64]).features, rtol=0, atol=0)
    torch.testing.assert_close(extractor(x).features[128:], extractor(x[128:]).features, rtol=1e-6, atol=1e-6)
