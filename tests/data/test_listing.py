"""Which files are pictures: files of all sorts, each made here."""

import os
from pathlib import Path

import pytest
from PIL import Image

from diffusion.data.listing import listing


def put(folder, *names, content=b""):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def picture(path, kind="JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path, format=kind)


def test_images_are_recognised_by_content(tmp_path):
    for name in ("a.jfif", "b.pic", "c", "d.JPG", "e.0001", "f.image.dat"):
        picture(tmp_path / name)
    put(tmp_path, "broken.png", "x.dat", "y.dat", "README")
    put(tmp_path, "notes.md", "a.txt", "b.TXT", content=b"text")
    found = listing(tmp_path)
    assert found.pictures == ["a.jfif", "b.pic", "broken.png", "c", "d.JPG", "e.0001", "f.image.dat"]
    assert found.left_out == {".dat": 2, "without a suffix": 1, ".md": 1, ".txt": 2}


def test_some_files_are_not_opened(tmp_path, monkeypatch):
    """Captions beside pictures cost no time, and a thumbnail or an old copy is not taken for the picture."""
    put(tmp_path, "1.png", "1.txt", "1.json", "1.npz", "1.NEF", "1.png~", "1.png.bak", "1.png.part")
    opened = []
    monkeypatch.setattr("diffusion.data.listing.is_picture", lambda path: opened.append(path.name))
    put(tmp_path, "1.dat")
    assert listing(tmp_path).pictures == ["1.png"]
    assert opened == ["1.dat"]


def test_files_that_storage_systems_add_are_not_images(tmp_path):
    picture(tmp_path / "cat" / "1.jpg")
    for name in (
        *(
            "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
            "__MACOSX/cat/._1.jpg",
            "cat/._1.jpg",
            "cat/.DS_Store",
            "Thumbs.db",
        ),
        *("cat/desktop.ini", "#recycle/2.jpg", "$RECYCLE.BIN/3.jpg"),
    ):
        picture(tmp_path / name)
    found = listing(tmp_path)
    assert (found.pictures, found.left_out, found.bare) == (["cat/1.jpg"], {}, [])


def test_hidden_files_and_folders_are_counted_not_looked_into(tmp_path):
    for name in ("1.png", ".2.png", ".git/3.png", ".git/4.png", "cat/.thumbnails/5.png"):
        picture(tmp_path / name)
    found = listing(tmp_path)
    assert (found.pictures, found.left_out) == (["1.png"], {"hidden": 3})


def test_folders_without_images_are_named_once(tmp_path):
    put(tmp_path, "cat/old/1.png", "cat/raw/a/1.txt", "labels/train/1.txt", "labels/val/1.txt")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    assert listing(tmp_path).bare == ["cat/raw", "empty", "labels"]


def test_linked_folders_are_read_once_where_they_are(tmp_path):
    put(tmp_path, "elsewhere/dog/1.png")
    root = tmp_path / "root"
    put(root, "zebra/1.png")
    (root / "alias").symlink_to(root / "zebra")
    (root / "zebra" / "up").symlink_to(root)
    (root / "zebra" / "above").symlink_to(tmp_path)
    (root / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    (root / "dog again").symlink_to(tmp_path / "elsewhere" / "dog")
    (root / "1.png").symlink_to(root / "zebra" / "1.png")
    assert listing(root).pictures == ["1.png", "dog/1.png", "zebra/1.png"]
    (root / "linked").symlink_to(root)
    assert listing(root / "linked").pictures == ["1.png", "dog/1.png", "zebra/1.png"]


def test_a_relative_path(tmp_path, monkeypatch):
    put(tmp_path, "animals/cat/1.png", "elsewhere/2.png")
    (tmp_path / "animals" / "dog").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for folder in ("animals", "./animals/", str(Path("..", tmp_path.name, "animals"))):
        assert listing(Path(folder)).pictures == ["cat/1.png", "dog/2.png"]
    monkeypatch.chdir(tmp_path / "animals")
    assert listing(Path(".")).pictures == ["cat/1.png", "dog/2.png"]


def test_folders_that_cannot_be_read_are_counted(tmp_path, monkeypatch):
    put(tmp_path, "cat/1.png", "locked/1.png")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = listing(tmp_path)
    assert (found.pictures, found.left_out) == (["cat/1.png"], {"folders that cannot be read": 1})


@pytest.mark.parametrize("name", ["gr\udcfc\udcdfe", "a\nb", "数.", "a b", "100%"])
def test_odd_names(tmp_path, name):
    put(tmp_path, f"{name}/{name}.png", f"{name}.{name}")
    found = listing(tmp_path)
    assert found.pictures == [f"{name}/{name}.png"]
    assert found.left_out.total() == 1
