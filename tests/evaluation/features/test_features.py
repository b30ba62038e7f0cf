"""Embeddings of images: what they are, that they repeat, and what is said where they cannot be had."""

import json
import os

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from diffusion.data.digits import Digits
from diffusion.evaluation.features import dinov2, inception
from diffusion.evaluation.features.auto import Auto
from diffusion.evaluation.features.base import Extractor, digest_of
from diffusion.evaluation.features.classifier import Classifier
from diffusion.evaluation.features.pixels import Pixels
from diffusion.evaluation.features.weights import Published
from diffusion.ground.errors import UserError

FAST = {"width": 16, "steps": 60}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "diffusion" / "features"


@pytest.fixture
def data():
    return Digits(path=None, channels=1, size=8, batch_size=8)


def test_pixels_are_the_values_in_minus_1_to_1(data):
    extractor = Pixels().extractor(data)
    x = torch.tensor([[[[0, 255], [51, 204]]]], dtype=torch.uint8)
    found = extractor(x)
    torch.testing.assert_close(found.features, torch.tensor([[-1.0, 1.0, -0.6, 0.6]]))
    assert found.probabilities is None
    assert extractor.width == 64


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


def test_auto_takes_the_best_that_is_there(data, cache, capsys, monkeypatch):
    Auto().extractor(data)
    assert capsys.readouterr().out.startswith("features=auto: classifier\n")
    monkeypatch.setattr(Digits, "classes", None)
    Auto().extractor(data)
    assert capsys.readouterr().out == "features=auto: pixels\n"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / inception.PUBLISHED.name).write_bytes(b"not the weights")
    with pytest.raises(UserError, match="is damaged or another file: its SHA-256 is"):
        Auto().extractor(data)
    assert capsys.readouterr().out == "features=auto: inception\n"


def test_missing_weights_name_the_file_and_the_directory(data, cache):
    with pytest.raises(UserError, match=rf"needs the file {cache}.*: download https://.*, or set features.path="):
        inception.Inception().extractor(data)
    with pytest.raises(UserError, match=r"needs the file /nowhere/x\.safetensors"):
        dinov2.DINOv2(path="/nowhere/x.safetensors").extractor(data)


def test_a_digest_is_of_names_types_and_values():
    one = {"a": torch.zeros(2), "b": torch.ones(2)}
    assert digest_of(one) == digest_of(dict(reversed(one.items())))
    others = ({"a": torch.zeros(2), "c": torch.ones(2)}, {"a": torch.zeros(2).long(), "b": torch.ones(2)})
    for other in (*others, {"a": torch.zeros(2), "b": torch.full((2,), 2.0)}):
        assert digest_of(other) != digest_of(one)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("contents", [Evil(), {"weight": Evil()}, [1, 2], {"weight": 3}])
def test_weights_are_never_unpickled(contents, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(contents, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="not a readable file of weights"):
        Published("inception", "weights.pth", None, "https://here").read(tmp_path / "weights.pth")
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.slow
def test_inception_is_torch_fidelitys_with_the_weights_of_a_file(tmp_path, data):
    """The published weights cannot be had here: random ones, in their place, through the same code."""
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.manual_seed(0)
    network = inception.architecture()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    reference = theirs.FeatureExtractorInceptionV3(
        "x", ["2048", "logits_unbiased"], feature_extractor_weights_path=path
    )
    published = inception.PUBLISHED.__class__("inception", "weights.pth", None, "https://here")
    extractor = inception.extractor(published, path)
    images = torch.randint(0, 256, (3, 3, 32, 20), dtype=torch.uint8)
    features, logits = reference(images)
    found = extractor(images)
    torch.testing.assert_close(found.features, features, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.probabilities, logits.double().softmax(1), rtol=1e-6, atol=1e-9)
    grey = images[:, :1]
    torch.testing.assert_close(extractor(grey).features, extractor(grey.expand(-1, 3, -1, -1)).features)
    assert extractor.width == features.shape[1] == 2048
    with pytest.raises(UserError, match="is damaged or another file"):
        inception.Inception(path=path).extractor(data)


def test_dinov2_is_timms_class_token_of_the_resized_image(tmp_path, data):
    timm = pytest.importorskip("timm")
    name = "vit_tiny_patch16_224"
    vit = timm.create_model(name, num_classes=0).eval()
    path = tmp_path / "vit.safetensors"
    safetensors.torch.save_file(vit.state_dict(), path)
    extractor = dinov2.DINOv2(path=path, model=name).extractor(data)
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = vit((images / 255 - mean) / std)
    torch.testing.assert_close(extractor(images).features, expected, rtol=1e-4, atol=1e-5)
    assert extractor.width == 192
    assert json.dumps(extractor.recipe)
    np.testing.assert_array_equal(extractor(images[:, :1, :9, :9]).features.shape, (2, 192))


def test_images_of_two_channels_are_refused():
    class Three(nn.Module):
        def forward(self, x):
            return inception.to_three_channels(x).flatten(1)

    with pytest.raises(UserError, match="images of 2 channels: these features take 1 or 3"):
        Extractor(Three(), 3, {})(torch.zeros(1, 2, 4, 4, dtype=torch.uint8))
