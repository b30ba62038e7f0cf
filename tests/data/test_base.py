"""A data set: what it declares, and its fingerprint."""

import pytest
import torch

from diffusion.conditioners.condition import Condition
from diffusion.data.base import Data, Declaration
from diffusion.ground.errors import UserError
from tests.helpers.numbered import Numbered


def test_a_fingerprint_reads_a_few_images_at_a_time():
    class Counted:
        def __init__(self, images):
            self.images, self.shape, self.dtype, self.most = images, images.shape, images.dtype, 0

        def __len__(self):
            return len(self.images)

        def __getitem__(self, rows):
            self.most = max(self.most, len(rows))
            return self.images[rows]

    class Watched(Numbered):
        def load(self, split):
            images, condition = super().load(split)
            return Counted(images), condition

    plain, data = Numbered(n=200), Watched(n=200)
    counted, _ = data.split("train")
    assert data.fingerprint("train") == plain.fingerprint("train")
    assert counted.most <= 64


def test_images_must_be_as_declared():
    class Floats(Numbered):
        def load(self, split):
            images, labels = super().load(split)
            return images.float() / 255 - 1, labels

    with pytest.raises(UserError, match=r"uint8.*torch\.float32.*min -1, max 0, std 0"):
        Floats().train_dataloader()
    colour = Numbered()
    colour.channels = 3
    with pytest.raises(UserError, match=r"set dataset\.channels=1 dataset\.size=2"):
        colour.train_dataloader()


class Fields(Data):
    """Of any numbers."""

    def __init__(self, **common):
        super().__init__(path=None, batch_size=4, **common)

    @property
    def declaration(self):
        return Declaration(torch.float32, (2, 4, 8))

    def load(self, split):
        return torch.zeros(8, 2, 4, 8), Condition(8)


def test_a_dataset_accepts_a_required_shape():
    for shape in (None, (2, 4, 8), [2, 4, 8]):
        assert len(Fields(shape=shape).train_dataloader()) == 2
    with pytest.raises(UserError, match=r"expected 1 channels and 4x8 pixels, but the images have 2 and 4x8"):
        Fields(shape=(1, 4, 8)).train_dataloader()
    with pytest.raises(UserError, match=r"shape=\(2, 4\): expected"):
        Fields(shape=(2, 4))


def test_the_fingerprint_is_of_the_images():
    from diffusion.data.digits import Digits

    class Changed(Digits):
        def load(self, split):
            images, labels = super().load(split)
            images[200, 0, 4, 4] ^= 1
            return images, labels

    same, changed = (kind(channels=1, size=8, batch_size=4, name="d") for kind in (Digits, Changed))
    assert same.describe() == Digits(channels=1, size=8, batch_size=8, seed=3, name="d").describe()
    assert same.describe()["fingerprint"] != changed.describe()["fingerprint"]
