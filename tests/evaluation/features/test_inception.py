"""Inception is torch-fidelity's."""

import pytest
import torch
from torch import nn

from diffusion.evaluation.features import inception
from diffusion.ground.errors import UserError


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
