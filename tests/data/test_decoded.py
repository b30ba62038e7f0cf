"""The cache of decoded images."""

import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from diffusion.data.decoding import read_image
from diffusion.errors import UserError
from tests.pictures import RED, data, plain


def test_a_full_disk_and_a_folder_out_of_reach_are_named(folder, monkeypatch):
    plain(folder / "0.png")
    plain(folder / "1.png")
    with pytest.raises(UserError, match=r"cannot be kept in /dev/null/x \(Not a directory\): set dataset.cache"):
        data(folder, cache="/dev/null/x").prepare_data()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r"0 MB needed, 0 MB free"):
        data(folder).prepare_data()


def test_images_are_decoded_once_and_again_when_anything_changes(folder, monkeypatch):
    decoded = []

    def counting(path, size, channels):
        decoded.append(path.name)
        return read_image(path, size, channels)

    monkeypatch.setattr("diffusion.data.decoded.read_image", counting)
    for k in range(3):
        plain(folder / f"{k}.png")

    def newly_decoded(**options):
        decoded.clear()
        images, _ = data(folder, **options).split("train")
        assert (images[:, 0] == 255).all()
        return len(decoded)

    assert newly_decoded() == 3
    assert newly_decoded() == 0
    assert newly_decoded(seed=1, val_fraction=0.5, batch_size=1) == 0
    assert newly_decoded(size=4) == 3
    os.utime(folder / "0.png", (1, 1))
    assert newly_decoded() == 3
    plain(folder / "3.png")
    assert newly_decoded() == 4
    assert newly_decoded(cache=str(folder / ".cache")) == 4
    assert not list(folder.parent.glob("cache/*/.decoding*")), "temporary folders are removed"


def test_an_interrupted_decoding_leaves_nothing(folder, monkeypatch):
    plain(folder / "0.png")
    plain(folder / "1.png")

    def interrupt(path, size, channels):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("diffusion.data.decoded.read_image", interrupt)
        with pytest.raises(KeyboardInterrupt):
            data(folder).prepare_data()
    assert not os.listdir(data(folder).cache.folder)
    assert len(data(folder).split("train")[0]) == 1


def test_batches_cannot_write_into_the_cache(folder):
    plain(folder / "0.png")
    plain(folder / "1.png")
    data(folder).split("train")[0].zero_()
    assert data(folder).split("train")[0].equal(torch.tensor(RED).byte()[None, :, None, None].expand(1, 3, 8, 8))
