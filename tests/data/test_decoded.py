"""What a request for decoded images is known by."""

import os
from pathlib import Path

import numpy as np
import pytest

from diffusion.data.decoded import Decoded, Request
from tests.helpers.pictures import plain

REQUEST = Request(Path("x"), ["a", "b"], 8, 3, "container")


@pytest.mark.parametrize(
    "change",
    [{"files": ["a", "c"]}, {"files": ["b", "a"]}, {"size": 9}, {"channels": 1}, {"range": "auto"}, {"range": (0, 9)}],
)
def test_the_key_changes_with_all_that_changes_the_images(change):
    assert REQUEST.key(["1", "2"]) != REQUEST._replace(**change).key(["1", "2"])


def test_the_key_changes_with_the_stamps_and_not_with_the_directory():
    assert REQUEST.key(["1", "2"]) != REQUEST.key(["1", "3"])
    assert REQUEST.key(["1", "2"]) == REQUEST._replace(root=Path("y")).key(["1", "2"])
    assert REQUEST.location() != REQUEST._replace(root=Path("y")).location()
    assert REQUEST.location() == REQUEST._replace(files=["c"]).location()


def test_any_file_named_like_an_image_has_stamps(folder):
    plain(folder / "a.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to(folder / "nowhere")
    plain(folder / os.fsdecode(b"gr\xfc\xdfe.png"))
    names = sorted(path.name for path in folder.iterdir())
    request = Request(folder, names, 8, 3, "container")
    first, gone, same, pipe = request.contents()
    assert first == same
    assert gone == pipe == "not a file"
    assert len(set(request.status())) == 4
    assert request.key(request.status()) != request.key(request.contents())


def test_what_is_written_is_read(folder):
    plain(folder / "a.png")
    (folder / "b.png").touch()
    Request(folder, ["a.png", "b.png"], 8, 3, (0, 200)).decode(folder, (0, 200))
    found = Decoded.read(folder)
    assert found.files == ["a.png"]
    assert found.skipped["b.png"].startswith("UnidentifiedImageError")
    assert found.limits == (0, 200)
    assert found.seen == [(255, 1, 1, 0, 255)]
    assert np.array_equal(found.images[:, :, 0, 0], [[255, 0, 0]])
