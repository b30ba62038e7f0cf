"""What all extractors share: the digest of their weights, and what they refuse."""

import pytest
import torch
from torch import nn

from diffusion.evaluation.features import inception
from diffusion.evaluation.features.base import Extractor, digest_of
from diffusion.ground.errors import UserError


def test_a_digest_is_of_names_types_and_values():
    one = {"a": torch.zeros(2), "b": torch.ones(2)}
    assert digest_of(one) == digest_of(dict(reversed(one.items())))
    others = ({"a": torch.zeros(2), "c": torch.ones(2)}, {"a": torch.zeros(2).long(), "b": torch.ones(2)})
    for other in (*others, {"a": torch.zeros(2), "b": torch.full((2,), 2.0)}):
        assert digest_of(other) != digest_of(one)


def test_images_of_two_channels_are_refused():
    class Three(nn.Module):
        def forward(self, x):
            return inception.to_three_channels(x).flatten(1)

    with pytest.raises(UserError, match="images of 2 channels: these features take 1 or 3"):
        Extractor(Three(), 3, {})(torch.zeros(1, 2, 4, 4, dtype=torch.uint8))
