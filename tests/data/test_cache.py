"""The cache of decoded images: what is found again, what is not, and what is removed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import cache, decoded
from diffusion.data.decoding import read_picture
from diffusion.ground.errors import UserError
from tests.helpers.pictures import BLUE, RED, data, plain


@pytest.fixture
def newly_decoded(monkeypatch):
    """Loads the images of a folder and returns the names of the files that this decoded."""
    names = []

    def counting(path, *given):
        names.append(path.name)
        return read_picture(path, *given)

    def load(root, **options):
        names.clear()
        data(root, **options).split("train")
        return sorted(names)

    monkeypatch.setattr(decoded, "read_picture", counting)
    return load


@pytest.fixture
def kept(folder):
    """The folder of the cache."""
    return folder.parent / "cache" / "diffusion"


def entries(kept):
    return sorted(kept.glob("images-*"))


def test_a_full_disk_and_a_folder_out_of_reach_are_named(folder, monkeypatch):
    plain(folder / "0.png")
    plain(folder / "1.png")
    with pytest.raises(UserError, match=r"cannot be kept in /dev/null/x \(Not a directory\): set dataset.cache"):
        data(folder, cache="/dev/null/x").prepare_data()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100, total=1e12))
    with pytest.raises(UserError, match=r"0 MB needed, 0 MB free"):
        data(folder).prepare_data()


def test_images_are_decoded_once_and_again_when_anything_changes(folder, newly_decoded):
    for k in range(3):
        plain(folder / f"{k}.png")
    names = ["0.png", "1.png", "2.png"]
    assert newly_decoded(folder) == names
    assert newly_decoded(folder) == []
    assert newly_decoded(folder, seed=1, val_fraction=0.5, batch_size=1) == []
    assert newly_decoded(folder, size=4) == names
    os.utime(folder / "0.png", (1, 1))
    assert newly_decoded(folder) == [], "its content is what it was"
    plain(folder / "3.png")
    assert newly_decoded(folder) == [*names, "3.png"]
    assert newly_decoded(folder, cache=str(folder / ".cache")) == [*names, "3.png"]
    assert not list(folder.parent.glob("cache/*/.decoding*")), "temporary folders are removed"


def fixed_dates(root):
    for path in root.iterdir():
        os.utime(path, (0, 0))


def test_names_sizes_and_dates_do_not_make_a_set(folder):
    """Archives that can be made again byte for byte have fixed dates."""
    other = folder.parent / "other"
    other.mkdir()
    for root, colour in (folder, RED), (other, BLUE):
        for k in range(4):
            plain(root / f"{k}.bmp", colour)
        fixed_dates(root)
    assert (data(folder).split("train")[0][:, 0] == 255).all()
    assert (data(other).split("train")[0][:, 2] == 255).all()
    for k in range(4):
        plain(folder / f"{k}.bmp", BLUE)  # into the same files, unpacked over them
    fixed_dates(folder)
    assert (data(folder).split("train")[0][:, 2] == 255).all()


def test_without_a_time_of_change_the_contents_are_read(folder, monkeypatch):
    for k in range(3):
        plain(folder / f"{k}.bmp", RED)
    monkeypatch.setattr(decoded, "_status", lambda path: "the same")
    monkeypatch.setattr(decoded, "_HAS_TIME_OF_CHANGE", False)
    assert (data(folder).split("train")[0][:, 0] == 255).all()
    for k in range(3):
        plain(folder / f"{k}.bmp", BLUE)
    assert (data(folder).split("train")[0][:, 2] == 255).all()


def test_a_copied_and_a_moved_folder_are_known(folder, newly_decoded):
    for k in range(3):
        plain(folder / f"{k}.png")
    assert len(newly_decoded(folder)) == 3
    copied = Path(shutil.copytree(folder, folder.parent / "copied"))
    moved = folder.rename(folder.parent / "moved")
    assert newly_decoded(copied) == newly_decoded(moved) == []


def test_another_version_of_the_decoder_or_of_pillow_decodes_again(folder, newly_decoded, monkeypatch):
    plain(folder / "0.png")
    plain(folder / "1.png")
    assert len(newly_decoded(folder)) == 2
    monkeypatch.setattr(decoded, "VERSION", decoded.VERSION + 1)
    assert len(newly_decoded(folder)) == 2
    monkeypatch.setattr("PIL.__version__", "99")
    assert len(newly_decoded(folder)) == 2


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def garble(path):
    path.write_bytes(b"\x80" * 300)


@pytest.mark.parametrize("name", ["index.json", "images.npy"])
@pytest.mark.parametrize("damage", [remove, empty, cut, garble])
def test_what_is_damaged_is_decoded_again(name, damage, folder, kept, newly_decoded, caplog):
    plain(folder / "0.png")
    plain(folder / "1.png")
    newly_decoded(folder)
    [entry] = entries(kept)
    damage(entry / name)
    assert len(newly_decoded(folder)) == 2
    [line] = caplog.messages
    assert "is damaged" in line
    assert len(line.splitlines()) == 1
    assert newly_decoded(folder) == []
    assert len(entries(kept)) == 1


def test_an_interrupted_decoding_leaves_nothing(folder, monkeypatch):
    plain(folder / "0.png")
    plain(folder / "1.png")

    def interrupt(path, *given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("diffusion.data.decoded.read_picture", interrupt)
        with pytest.raises(KeyboardInterrupt):
            data(folder).prepare_data()
    assert not os.listdir(data(folder).cache.folder)
    assert len(data(folder).split("train")[0]) == 1


DECODING = """
import sys, time
from pathlib import Path
from diffusion.data import decoded
from tests.helpers.pictures import data

def slow(path, *given):
    Path(sys.argv[2]).touch()
    time.sleep(600)

decoded.read_picture = slow
data(sys.argv[1]).prepare_data()
"""


@pytest.mark.skipif(cache.fcntl is None, reason="kills as POSIX does")
def test_what_a_killed_process_left_is_removed_but_not_what_a_live_one_does(folder, kept, newly_decoded):
    plain(folder / "0.png")
    plain(folder / "1.png")
    started = folder.parent / "started"
    with subprocess.Popen([sys.executable, "-c", DECODING, folder, started]) as process:
        while not started.exists():
            assert process.poll() is None
            time.sleep(0.05)
        [unfinished] = kept.glob(".decoding-*")
        assert len(newly_decoded(folder)) == 2, "two processes may decode the same images"
        assert unfinished.exists()
        process.send_signal(signal.SIGKILL)
    plain(folder / "2.png")
    assert len(newly_decoded(folder)) == 3
    assert not unfinished.exists()
    assert not list(kept.glob(".decoding-*"))


def test_the_images_of_a_folder_as_it_was_are_removed(folder, kept, newly_decoded):
    other = folder.parent / "other"
    other.mkdir()
    for root, colour in (folder, RED), (other, BLUE):
        plain(root / "0.png", colour)
        plain(root / "1.png", colour)
        newly_decoded(root)
    newly_decoded(folder, size=4)
    assert len(entries(kept)) == 3
    before = entries(kept)
    plain(folder / "2.png")
    newly_decoded(folder)
    assert len(set(before) & set(entries(kept))) == 2
    assert len(entries(kept)) == 3
    assert newly_decoded(other) == newly_decoded(folder, size=8) == []


def test_the_least_recently_used_is_removed_first(folder, kept, newly_decoded, monkeypatch, caplog):
    roots = [folder.parent / f"set {k}" for k in range(4)]
    for k, root in enumerate(roots):
        root.mkdir()
        plain(root / "0.png", (k, k, k))
        plain(root / "1.png", (k, k, k))
    for root in roots[:3]:
        newly_decoded(root)
    used = sum(file.stat().st_size for entry in entries(kept) for file in entry.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9, total=10 * (used + 100)))
    monkeypatch.setattr(cache, "_LOGGED", 100)
    for age, root in enumerate([roots[0], roots[2], roots[1]]):
        [entry] = [entry for entry in entries(kept) if np.load(entry / "images.npy").min() == roots.index(root)]
        os.utime(entry, (time.time() - age, time.time() - age))
    assert not caplog.messages
    newly_decoded(roots[3])
    assert [line for line in caplog.messages if "removed 0.00 GB of old decoded images from" in line]
    assert newly_decoded(roots[0]) == newly_decoded(roots[2]) == newly_decoded(roots[3]) == []
    assert len(newly_decoded(roots[1])) == 2


@pytest.mark.skipif(cache.fcntl is None, reason="there the system keeps what is mapped")
def test_what_is_in_use_is_never_removed(folder, kept, newly_decoded, monkeypatch):
    plain(folder / "0.png")
    plain(folder / "1.png")
    using = data(folder)
    using.prepare_data()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9, total=0))
    plain(folder / "2.png")
    newly_decoded(folder)
    assert len(entries(kept)) == 2
    del using
    plain(folder / "3.png")
    newly_decoded(folder)
    assert len(entries(kept)) == 1


def test_a_cache_that_may_only_be_read_is_read(folder, kept, newly_decoded, monkeypatch):
    plain(folder / "0.png")
    plain(folder / "1.png")
    newly_decoded(folder)
    copied = shutil.copytree(folder, folder.parent / "copied")

    def refuse(*given, **options):
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "touch", refuse)
    assert newly_decoded(folder) == newly_decoded(copied) == []


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is mapped")
def test_no_folder_is_renamed_while_a_file_in_it_is_mapped(folder, monkeypatch):
    """Windows would refuse."""
    rename = Path.rename

    def as_windows_does(path, target):
        assert str(path) not in Path("/proc/self/maps").read_text()
        renamed.append(path)
        return rename(path, target)

    renamed = []
    monkeypatch.setattr(Path, "rename", as_windows_does)
    plain(folder / "0.png")
    plain(folder / "1.png")
    data(folder).prepare_data()
    assert renamed


def test_batches_cannot_write_into_the_cache(folder):
    plain(folder / "0.png")
    plain(folder / "1.png")
    data(folder).split("train")[0].zero_()
    assert data(folder).split("train")[0].equal(torch.tensor(RED).byte()[None, :, None, None].expand(1, 3, 8, 8))


def ramps(folder, top=4080, count=4):
    for k in range(count):
        Image.fromarray((np.arange(64).reshape(8, 8) / 63 * (top - k)).astype(np.uint16)).save(folder / f"{k}.png")


def test_auto_is_found_once_and_shared_with_its_numbers(folder, newly_decoded, monkeypatch):
    ramps(folder)
    looked = []
    extremes = decoded.read_values
    monkeypatch.setattr(decoded, "read_values", lambda path: looked.append(path) or extremes(path))
    found = data(folder, channels=1, range="auto")
    assert found.settled() == {"range": [0, 4080]}
    assert found.split("train")[0].max() >= 254
    assert len(looked) == 4
    assert newly_decoded(folder, channels=1, range="auto") == []
    assert newly_decoded(folder, channels=1, range=[0, 4080]) == []
    assert len(looked) == 4
    assert len(newly_decoded(folder, channels=1, range=[0, 4095])) == 4
    assert len(newly_decoded(folder, channels=1)) == 4
    assert data(folder, channels=1).settled() == {}


def test_auto_without_a_readable_image_reports_why(folder):
    for k in range(3):
        (folder / f"{k}.png").write_bytes(b"none")
    with pytest.raises(UserError, match="0 of 3 images can be read"):
        data(folder, range="auto").prepare_data()


def test_what_is_not_ours_is_never_removed(folder, kept, newly_decoded, monkeypatch):
    """A folder of the user's may be called as one of ours is, where dataset.cache leads to where the data are."""
    for name, file in ("images-train", "0.png"), ("images-64", "images.npy"), (".decoding-notes", "notes.txt"):
        (kept / name).mkdir(parents=True)
        (kept / name / file).write_text("precious")
    (kept / "images-empty").mkdir()
    ours = {"images-0123456789abcdef01234567": "of an earlier version", ".decoding-x": "left by a killed process"}
    for name in ours:
        (kept / name).mkdir()
        (kept / name / "images.npy").touch()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9, total=0))
    plain(folder / "0.png")
    plain(folder / "1.png")
    newly_decoded(folder)
    left = {path.name for path in kept.iterdir()}
    assert {"images-train", "images-64", "images-empty", ".decoding-notes"} < left
    assert not left & ours.keys()
