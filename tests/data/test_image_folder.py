"""A folder of odd images, each made here."""

import itertools
import os
import shutil

import pytest
import torch
from PIL import Image

from diffusion.ground import random
from diffusion.ground.errors import UserError
from tests.helpers.pictures import BLUE, RED, data, mean, plain


def test_broken_images_are_skipped_and_named_or_refused(folder, caplog):
    for k in range(4):
        plain(folder / f"{k}.JPG" if k % 2 else folder / f"{k}.png")
    (folder / "empty.png").touch()
    noise = torch.randint(256, (64, 64), generator=torch.Generator().manual_seed(0)).byte().numpy()
    Image.fromarray(noise).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:2000])
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("not an image")

    skipping = data(folder)
    skipping.prepare_data()
    assert "3 broken images" in caplog.text
    for name in ("empty.png", "cut.jpg (OSError: image file is truncated", "dangling.png (FileNotFoundError"):
        assert name in caplog.text
    assert len(skipping.split("train")[0]) + len(skipping.split("val")[0]) == 5
    with pytest.raises(UserError, match=r"3 broken images: .*on_broken=skip"):
        data(folder, on_broken="error").prepare_data()


def test_pipes_and_endless_links_are_walked_past(folder):
    for k in range(3):
        plain(folder / "in" / f"{k}.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "in" / "up").symlink_to(folder)
    found = data(folder)
    assert len(found.layout.files) == 4
    assert len(found.split("train")[0]) == 2
    assert found.decoded.skipped == {"pipe.png": "OSError: not a file"}


def test_a_name_need_not_be_text(folder, caplog):
    for k in range(3):
        plain(folder / f"{k}.png")
    (folder / os.fsdecode(b"gr\xfc\xdfe.png")).touch()
    data(folder).prepare_data()
    assert r"gr\udcfc\udcdfe.png (UnidentifiedImageError" in caplog.text


def test_classes_are_the_top_level_folders(folder):
    for k in range(4):
        plain(folder / "cats" / f"{k}.png", RED)
        plain(folder / "dogs" / f"{k}.png", BLUE)
    plain(folder / "stray.png", (0, 255, 0))
    (folder / "empty").mkdir()
    found = data(folder)
    assert found.classes == ("cats", "dogs")
    for split in ("train", "val"):
        pictures, condition = found.split(split)
        for image, label in zip(pictures, condition.filled("label", -1), strict=True):
            assert mean(image.double()) == [list(RED), list(BLUE), [0, 255, 0]][label]


def test_one_folder_is_no_class(folder):
    for k in range(4):
        plain(folder / "cats" / f"{k}.png")
    found = data(folder)
    assert found.classes is None
    assert next(iter(found.train_dataloader())).condition.asked == ()


def test_the_split_is_disjoint_whole_and_the_same_for_every_seed(folder):
    for k in range(40):
        plain(folder / f"{k:02}.png", (k, k, k))
    splits = [data(folder, val_fraction=0.25, seed=seed).split for seed in (0, 1)]
    train, val = (splits[0](name)[0][:, 0, 0, 0].tolist() for name in ("train", "val"))
    assert 5 <= len(val) <= 15
    assert sorted(train + val) == list(range(40))
    assert val != list(range(len(val)))
    assert splits[1]("val")[0].equal(splits[0]("val")[0])
    assert len(data(folder, val_fraction=0.001).split("val")[0]) == 1
    assert len(data(folder, val_fraction=0.999).split("train")[0]) == 1


def sides(root, **options):
    """Name -> "train" or "val". The first pixel of image k is k."""
    found = data(root, channels=1, **options)
    return {k: name for name in ("train", "val") for k in found.split(name)[0][:, 0, 0, 0].tolist()}


def test_an_image_keeps_its_side_whatever_happens_to_others(folder):
    for k in range(200):
        plain(folder / f"{k:03}.png", k, mode="L")
    before = sides(folder)
    assert 2 <= sum(side == "val" for side in before.values()) <= 20
    plain(folder / "0000.png", 200, mode="L")  # comes early in the list
    for k in range(0, 30, 3):
        (folder / f"{k:03}.png").unlink()
    for k in range(1, 30, 3):
        (folder / f"{k:03}.png").write_bytes(b"")  # broken
    (folder / "031.png").rename(folder / "renamed.png")
    after = sides(folder)
    assert len(after) == 181
    assert all(after[k] == before[k] for k in after if k not in (31, 200))
    for k in range(1, 30, 3):
        plain(folder / f"{k:03}.png", k, mode="L")  # repaired
    after = sides(folder)
    assert all(after[k] == before[k] for k in after if k not in (31, 200))


def test_a_larger_val_fraction_only_adds(folder):
    for k in range(100):
        plain(folder / f"{k}.png", k, mode="L")
    val = [{k for k, side in sides(folder, val_fraction=f).items() if side == "val"} for f in (0.05, 0.1, 0.3, 0.9)]
    assert all(small < large for small, large in itertools.pairwise(val))
    assert len(val[-1]) == pytest.approx(90, abs=9)


def test_images_added_to_a_very_small_folder_take_none_from_training(folder):
    """There one image is taken for validation against its hash; it may go back, but no other may come."""
    plain(folder / "0.png", 0, mode="L")
    plain(folder / "1.png", 1, mode="L")
    trained = set()
    for k in range(2, 60):
        plain(folder / f"{k}.png", k, mode="L")
        found = sides(folder, val_fraction=0.02)
        assert set(found.values()) == {"train", "val"}
        assert not {name for name, side in found.items() if side == "val"} & trained
        trained |= {name for name, side in found.items() if side == "train"}


def test_a_run_that_began_with_it_keeps_the_split_of_format_0(folder):
    """With the files that it knew, and its classes, whatever has been learnt since."""
    for k in range(20):
        plain(folder / ("train" if k % 2 else "val") / f"{k:02}.png", k, mode="L")
    shutil.copy(folder / "val" / "00.png", folder / "val" / "20.jfif")
    (folder / "@eaDir").mkdir()
    plain(folder / "@eaDir" / "00.png", 20, mode="L")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    chosen = {names[k] for k in random.permutation(0, "image_folder", 21)[:4]}
    found = data(folder, split="permutation", val_fraction=0.2)
    assert found.classes == ("@eaDir", "train", "val")
    assert found.layout.files[:4] == list(found.decoded.files[:4])
    assert set(found.layout.files[:4]) == chosen
    assert (len(found.split("val")[0]), len(found.split("train")[0])) == (4, 17)


def test_split_folders_are_no_classes(folder, capsys):
    for k in range(12):
        plain(folder / ("Train" if k < 8 else "valid") / ("cat" if k % 2 else "dog") / f"{k}.png", k, mode="L")
    plain(folder / "test" / "12.png", 12, mode="L")
    plain(folder / "beside.png", 13, mode="L")
    (folder / "README.md").touch()
    found = data(folder, channels=1)
    found.prepare_data()
    assert found.classes == ("cat", "dog")
    for name, k in (("train", range(8)), ("val", range(8, 12))):
        images, condition = found.split(name)
        labels = condition.tensors["label"]
        assert sorted(images[:, 0, 0, 0].tolist()) == list(k)
        assert all(label == (image[0, 0, 0] + 1) % 2 for image, label in zip(images, labels, strict=True))
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: 12 pictures, 2 classes: cat 6, dog 6",
        "split by the folders, not by val_fraction: train 8, val 4",
        "left out: .md 1, pictures beside the split folders 1, pictures in test 1",
    ]


@pytest.mark.parametrize(("name", "purpose"), [("train", "training"), ("val", "validation")])
def test_a_split_folder_of_which_nothing_can_be_read_is_refused(folder, name, purpose):
    for k in range(3):
        plain(folder / "train" / f"{k}.png")
        plain(folder / "val" / f"{k}.png")
        (folder / name / f"{k}.png").write_bytes(b"cut off")
    with pytest.raises(
        UserError, match=f"3 of 6 images can be read, none of them for {purpose}. 3 broken images: {name}"
    ):
        data(folder).prepare_data()


def test_what_was_found_is_printed_once(folder, capsys, caplog):
    for k in range(30):
        plain(folder / "pets" / f"class{k % 12:02}" / f"{k}.png", k, mode="L")
    plain(folder / "pets" / "beside.png")
    for name in ("pets/note.txt", "pets/class03/3.TXT", ".gitignore"):
        (folder / name).touch()
    (folder / "pets" / "empty").mkdir()
    (folder / "pets" / "raw").mkdir()
    (folder / "pets" / "raw" / "1.heic").write_bytes(b"\0\0\0\x18ftypheic")
    plain(folder / "pets" / "broken" / "x.png").write_bytes(b"cut off")
    found = data(folder, val_fraction=0.1)
    found.prepare_data()
    found.prepare_data()
    train, val = len(found.split("train")[0]), len(found.split("val")[0])
    reported = capsys.readouterr().out.splitlines()
    classes = ", ".join(f"class{k:02} {3 if k < 6 else 2}" for k in range(9))
    assert reported[:6] == [
        f"{folder}: 31 pictures in pets, 13 classes: broken 0, {classes}, and 3 more",
        f"split by the hash of each name: train {train}, val {val}",
        "left out: .txt 2, .heic 1, hidden 1",
        "folders without pictures: pets/empty, pets/raw",
        "pictures beside the class folders, without a class: 1",
        "classes of which no picture can be read: broken 1",
    ]
    assert train + val == 31
    assert caplog.text.count("1 broken images: pets/broken/x.png") == 1


def test_mistakes_are_named(folder):
    (folder / "notes.txt").touch()
    with pytest.raises(UserError, match=r"has no images: 1 files seen \(\.txt 1\); set dataset.path .*\(PNG, JPEG"):
        data(folder).prepare_data()
    with pytest.raises(UserError, match=r"missing is not a folder: set it to"):
        data(folder / "missing").prepare_data()
    plain(folder / "only.png")
    with pytest.raises(
        UserError, match=r"1 of 1 images can be read, but at least 2 are needed \(one is for validation\)$"
    ):
        data(folder).prepare_data()
    for option, message in (
        ({"on_broken": "ignore"}, "on_broken='ignore': expected skip or error"),
        ({"val_fraction": 0}, "val_fraction=0"),
        ({"split": "random"}, "split='random': expected hash or permutation"),
        ({"channels": 2}, "channels=2"),
    ):
        with pytest.raises(UserError, match=message):
            data(folder, **option)
