"""Files of published weights: missing, and hostile."""

import os

import pytest
import torch

from diffusion.evaluation.features import dinov2, inception
from diffusion.evaluation.features.weights import Published
from diffusion.ground.errors import UserError


def test_missing_weights_name_the_file_and_the_directory(data, cache):
    with pytest.raises(UserError, match=rf"needs the file {cache}.*: download https://.*, or set features.path="):
        inception.Inception().extractor(data)
    with pytest.raises(UserError, match=r"needs the file /nowhere/x\.safetensors"):
        dinov2.DINOv2(path="/nowhere/x.safetensors").extractor(data)


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
