"""A folder of odd images, each made here."""

import itertools
import os

import pytest
import torch
from PIL import Image

from diffusion import random
from diffusion.data import image_folder
from diffusion.errors import UserError
from tests.pictures import BLUE, RED, data, mean, plain


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
    assert len(found.files) == 4
    assert len(found.split("train")[0]) == 2
    assert found._decoded().skipped == {"pipe.png": "OSError: not a file"}


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
        for image, label in zip(*found.split(split), strict=True):
            assert mean(image.double()) == [list(RED), list(BLUE), [0, 255, 0]][label]


def test_one_folder_is_no_class(folder):
    for k in range(4):
        plain(folder / "cats" / f"{k}.png")
    found = data(folder)
    assert found.classes is None
    assert next(iter(found.train_dataloader())).y.tolist() == [-1, -1]


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


def test_the_side_follows_from_the_name_on_every_system():
    """Written down: a new rule would move images of runs that go on."""
    chances = [
        image_folder._chance(name) for name in ("a.png", "cats/1.jpg", "caf\u00e9.png", "cafe\u0301.png", "\udcfc")
    ]
    assert chances == pytest.approx([0.09852739742, 0.77420095979, 0.53664983967, 0.53664983967, 0.02699262494])
    assert chances[2] == chances[3]  # Linux stores what was typed; macOS may take the accent apart


def test_the_split_of_format_0(folder):
    for k in range(20):
        plain(folder / f"{k:02}.png", k, mode="L")
    found = sides(folder, split="permutation", val_fraction=0.2)
    assert {k for k, side in found.items() if side == "val"} == set(
        random.permutation(0, "image_folder", 20)[:4].tolist()
    )


def test_mistakes_are_named(folder):
    (folder / "notes.txt").touch()
    with pytest.raises(UserError, match=r"has no images: 1 files seen, none of them with \.png \.jpg"):
        data(folder).prepare_data()
    with pytest.raises(UserError, match=r"missing is not a folder: 0 files seen"):
        data(folder / "missing").prepare_data()
    plain(folder / "only.png")
    with pytest.raises(UserError, match="1 of 1 images can be read, but at least 2"):
        data(folder).prepare_data()
    for option, message in (
        ({"on_broken": "ignore"}, "on_broken=ignore must be skip or error"),
        ({"val_fraction": 0}, "val_fraction=0"),
        ({"split": "random"}, "split=random must be hash or permutation"),
        ({"channels": 2}, "channels=2"),
    ):
        with pytest.raises(UserError, match=message):
            data(folder, **option)
