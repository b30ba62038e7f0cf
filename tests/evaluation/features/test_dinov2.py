"""DINOv2 is timm's."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from diffusion.evaluation.features import dinov2


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
