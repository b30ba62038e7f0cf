"""What folders mean, by their names; most of it without a picture in them."""

import pytest

from diffusion.data import layout
from diffusion.data.layout import Hashed
from diffusion.ground.errors import UserError


def laid_out(folder, *names):
    """The layout of files with these names, in a fresh folder; none of them is opened."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return Hashed(folder)


def split(found):
    n = found.n_val(found.files, 0.5)
    return {"val": set(found.files[:n]), "train": set(found.files[n:])}


def test_the_side_follows_from_the_name_on_every_system():
    """Written down: another hash would move images of runs that go on."""
    names = "a.png", "cats/1.jpg", "caf\u00e9.png", "cafe\u0301.png", "\udcfc"
    chances = [layout.chance(name) for name in names]
    assert chances == pytest.approx([0.09852739742, 0.77420095979, 0.53664983967, 0.53664983967, 0.02699262494])
    assert chances[2] == chances[3]


def test_the_hash_is_uniform():
    chances = sorted(layout.chance(f"cats/{k:05}.png") for k in range(10_000))
    assert max(abs(chance - k / 10_000) for k, chance in enumerate(chances)) < 0.02  # 1.95 / sqrt(n): p = 0.001


@pytest.mark.parametrize(
    ("names", "top", "classes"),
    [
        (["a.png", "b.png"], "", None),
        (["pets/cat/1.png", "pets/dog/1.png", "README"], "pets", ("cat", "dog")),
        (["a/b/cat/1.png", "a/b/dog/1.png", "a/notes/1.txt"], "a/b", ("cat", "dog")),
        (["cat/1.png", "cat/2.png"], "cat", None),
        (["cat/1.png", "dog/1.png", "1.png"], "", ("cat", "dog")),
        (["cat/1.png", "1.png"], "", None),
        (["pets/cat/1.png", "pets/dog/1.png", "cover.png"], "pets", ("cat", "dog")),
        (["a/b/cat/1.png", "a/b/dog/1.png", "a/b/1.png", "a/1.png", "1.png"], "a/b", ("cat", "dog")),
        (["a/pets/cat/1.png", "a/pets/cat/2.png", "a/1.png"], "a", None),
        (["cat/old/1.png", "cat/new/1.png", "dog/1.png"], "", ("cat", "dog")),
        (["train/cat/1.png", "train/dog/1.png"], "train", ("cat", "dog")),
        (["train/1.png", "car/1.png", "ship/1.png"], "", ("car", "ship", "train")),
        (
            ["__MACOSX/pets/._1.png", "pets/cat/1.png", "pets/dog/@eaDir/1.png", "pets/dog/1.png"],
            "pets",
            ("cat", "dog"),
        ),
        (["cat/1.png", "e\u0301te\u0301/1.png"], "", ("cat", "\u00e9t\u00e9")),
    ],
)
def test_classes_are_the_folders_below_those_that_all_lies_in(tmp_path, names, top, classes):
    found = laid_out(tmp_path, *names)
    assert (found.top, found.classes) == (top, classes)
    assert found.sides == {}


@pytest.mark.parametrize(
    ("names", "train", "val", "left_out"),
    [
        (["train/1.png", "val/1.png"], "train", "val", {}),
        (["train/1.png", "valid/1.png", "test/1.png"], "train", "valid", {"pictures in test": 1}),
        (["training/1.png", "testing/1.png"], "training", "testing", {}),
        (["TRAIN/1.png", "Validation/1.png"], "TRAIN", "Validation", {}),
        (["train2017/1.png", "val_2017/1.png", "annotations/1.json"], "train2017", "val_2017", {".json": 1}),
        (["set/train/1.png", "set/test/1.png"], "set/train", "set/test", {}),
        (
            ["set/train/1.png", "set/val/1.png", "cover.png"],
            *("set/train", "set/val", {"pictures beside the split folders": 1}),
        ),
        (
            ["train/1.png", "val/1.png", "more/1.png", "more/2.png", "1.png"],
            *("train", "val", {"pictures in more": 2, "pictures beside the split folders": 1}),
        ),
    ],
)
def test_split_folders(tmp_path, names, train, val, left_out):
    found = laid_out(tmp_path, *names)
    assert split(found) == {"train": {f"{train}/1.png"}, "val": {f"{val}/1.png"}}
    assert found.left_out == left_out
    assert found.classes is None


def test_classes_in_split_folders(tmp_path):
    found = laid_out(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/fox/a/1.png", "val/1.png")
    assert found.classes == ("cat", "dog", "fox")
    assert {file: found.class_of(file) for file in found.files if file.startswith("val")} == {
        "val/fox/a/1.png": "fox",
        "val/1.png": None,
    }


def test_classes_below_a_folder_that_all_lies_in_in_every_split(tmp_path):
    found = laid_out(tmp_path, "train/images/a/cat/1.png", "val/images/a/dog/1.png", "test/images/1.png")
    assert found.classes == ("cat", "dog")


def test_a_side_does_not_depend_on_the_folders_that_are_entered(tmp_path):
    """A second class is added, and the first is no longer the folder that all lies in."""
    one = laid_out(tmp_path, *(f"cat/{k}.png" for k in range(30)))
    before = split(one)
    two = laid_out(tmp_path, *(f"dog/{k}.png" for k in range(30)))
    after = split(two)
    assert two.top != one.top
    assert all(before[side] <= after[side] for side in ("train", "val"))


def test_held_out_images_without_others_are_rejected(tmp_path):
    with pytest.raises(UserError, match=r"has images in test, val, but no folder train: set dataset.path to one"):
        laid_out(tmp_path, "test/1.png", "val/1.png")
