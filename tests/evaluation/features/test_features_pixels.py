"""Pixels as features."""

import torch

from diffusion.evaluation.features.pixels import Pixels


def test_pixels_are_the_values_in_minus_1_to_1(data):
    extractor = Pixels().extractor(data)
    x = torch.tensor([[[[0, 255], [51, 204]]]], dtype=torch.uint8)
    found = extractor(x)
    torch.testing.assert_close(found.features, torch.tensor([[-1.0, 1.0, -0.6, 0.6]]))
    assert found.probabilities is None
    assert extractor.width == 64
