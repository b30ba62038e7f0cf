from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision import datasets

from diffusion.data.torchvision_sets import CIFAR10, MNIST, FashionMNIST, to_size
from diffusion.ground.errors import UserError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


def local(kind, **options):
    return kind(**{"path": str(SHARED), "channels": 1, "size": 28, "batch_size": 128, **options})


@pytest.mark.skipif(not (SHARED / "MNIST").exists(), reason="needs MNIST and Fashion-MNIST in ../shared/data")
@pytest.mark.parametrize(("kind", "source"), [(MNIST, datasets.MNIST), (FashionMNIST, datasets.FashionMNIST)])
def test_local_copies_are_what_torchvision_reads(kind, source, monkeypatch):
    monkeypatch.setattr(source, "download", lambda self: pytest.fail("nothing needs to be downloaded"))
    data = local(kind, size=32)
    data.prepare_data()
    for split, train in (("train", True), ("val", False)):
        images, condition = data.split(split)
        theirs = source(SHARED, train=train)
        assert data.original_size == theirs.data.shape[-1]
        assert images.shape == (len(theirs), 1, 32, 32)
        assert torch.equal(images[:, 0, 2:-2, 2:-2], theirs.data)
        assert images.sum() == theirs.data.sum(), "the border is black"
        assert torch.equal(condition.tensors["label"], theirs.targets)


def test_larger_sizes_get_an_even_black_border():
    images = torch.full((2, 3, 4, 4), 200, dtype=torch.uint8)
    padded = to_size(images, 7)
    assert torch.equal(padded[..., 1:5, 1:5], images)
    assert padded.sum() == images.sum()
    assert to_size(images, 4).equal(images)


def test_smaller_sizes_are_antialiased():
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(8).expand(1, 1, 16, 16)
    small = to_size(stripes.contiguous(), 4)
    assert small.dtype == torch.uint8
    assert (small.float() - 127.5).abs().max() < 40, "without antialiasing the stripes alias to black or white"


@pytest.mark.parametrize(
    ("kind", "files", "folder"),
    [
        (MNIST, ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"], "MNIST/raw"),
        (FashionMNIST, ["train-images-idx3-ubyte.gz"], "FashionMNIST/raw"),
        (CIFAR10, ["cifar-10-python.tar.gz"], ""),
    ],
)
def test_a_failed_download_names_the_files_and_their_directory(kind, files, folder, tmp_path, monkeypatch):
    def no_network(self):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        raise URLError("no network")

    monkeypatch.setattr(kind.source, "download", no_network)
    data = local(kind, path=str(tmp_path))
    for attempt in (data.prepare_data, data.train_dataloader):
        with pytest.raises(UserError) as caught:
            attempt()
        message = str(caught.value)
        assert str(tmp_path / folder) in message
        assert all(file in message for file in files)
        assert "\n" not in message
        assert not any(tmp_path.iterdir())


def test_a_damaged_file_is_named_and_not_taken_for_a_missing_one(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in MNIST.files:
        (raw / file.removesuffix(".gz")).write_bytes(b"\0\0\x08\x03")
    with pytest.raises(UserError, match=r"damaged.*delete"):
        local(MNIST, path=str(tmp_path)).prepare_data()


class FakeCIFAR10(datasets.CIFAR10):
    """Ten images in torchvision's layout, (N, H, W, C)."""

    def __init__(self, root, train=True, download=False):
        self.data = torch.arange(10 * 32 * 32 * 3).byte().reshape(10, 32, 32, 3).numpy()
        self.targets = list(range(10))


def test_cifar10_is_channels_first(monkeypatch):
    monkeypatch.setattr(CIFAR10, "source", FakeCIFAR10)
    images, condition = local(CIFAR10, channels=3, size=32).split("train")
    assert images.permute(0, 2, 3, 1).equal(torch.from_numpy(FakeCIFAR10("").data))
    assert condition.tensors["label"].tolist() == list(range(10))
    assert len(CIFAR10.classes) == 10
