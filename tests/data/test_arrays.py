"""dataset=arrays: what is read from a folder of .npy files, and what is refused in one line."""

import numpy as np
import pytest
import torch

from diffusion.ground.errors import UserError
from tests.helpers.fields import arrays, fields, write


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "set", train=40, val=10)


def test_what_np_save_wrote_comes_back(folder):
    data = arrays(folder)
    assert data.declaration == (torch.float32, (3, 8, 12))
    for split, n in ("train", 40), ("val", 10):
        x, _ = data.split(split)
        assert x.shape == (n, 3, 8, 12)
        assert np.array_equal(x[:].numpy(), np.load(folder / split / "x.npy"))
        assert torch.equal(x[torch.tensor([3, 1])], x[:][[3, 1]])


def test_without_val_a_row_keeps_its_side_when_others_are_added(tmp_path):
    sides = {}
    for n in 100, 150:
        root = tmp_path / str(n)
        (root / "train").mkdir(parents=True)
        np.save(root / "train" / "x.npy", np.arange(n, dtype=np.float32).reshape(n, 1, 1, 1))
        data = arrays(root, val_fraction=0.2)
        sides[n] = {split: {int(value) for value in data.split(split)[0][:].flatten()} for split in ("train", "val")}
        assert sides[n]["train"] | sides[n]["val"] == {*range(n)}
        assert not sides[n]["train"] & sides[n]["val"]
        assert 0.1 * n < len(sides[n]["val"]) < 0.3 * n
    assert sides[100]["val"] == {row for row in sides[150]["val"] if row < 100}


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_neither_side_is_ever_empty(tmp_path, fraction):
    (tmp_path / "train").mkdir()
    np.save(tmp_path / "train" / "x.npy", np.zeros((3, 1, 2, 2)))
    data = arrays(tmp_path, val_fraction=fraction)
    assert {len(data.split(split)[0]) for split in ("train", "val")} == {1, 2}


def test_classes_are_numbers_unless_they_have_names(folder):
    assert arrays(folder).classes is None
    for split, n in ("train", 40), ("val", 10):
        np.save(folder / split / "label.npy", np.arange(n) % 3)
    assert arrays(folder).classes == ("0", "1", "2")
    (folder / "classes.txt").write_text("cat\ndog\nünlü\n", encoding="utf-8")
    assert arrays(folder).classes == ("cat", "dog", "ünlü")


def test_the_fingerprint_is_of_the_numbers(folder):
    before = arrays(folder).describe()
    assert (before["train"], before["val"]) == (40, 10)
    assert arrays(folder).describe() == before
    x = np.load(folder / "val" / "x.npy")
    x[3, 1, 2, 3] = np.nextafter(x[3, 1, 2, 3], x.dtype.type(np.inf))
    np.save(folder / "val" / "x.npy", x)
    assert arrays(folder).describe()["fingerprint"] != before["fingerprint"]


def test_findings_are_reported_once(folder, capsys):
    np.save(folder / "train" / "angle.npy", np.zeros((40, 2), np.float32))
    np.save(folder / "val" / "angle.npy", np.zeros((10, 2), np.float32))
    data = arrays(folder)
    data.prepare_data()
    data.prepare_data()
    message = capsys.readouterr().out.splitlines()
    assert message[0].endswith("3x8x12 (C, H, W), float32, conditions: angle (2,)")
    assert message[1] == "split by the folders, not by val_fraction: train 40, val 10"
    assert len(message) == 2


def save(name, array):
    return lambda root: np.save(root / name, array, allow_pickle=True)


def text(name, contents):
    return lambda root: (root / name).write_bytes(contents)


def without(name):
    return lambda root: (root / name).unlink()


def with_nan(root):
    x = fields(40)
    x[17, 2, 5, 11] = np.nan
    np.save(root / "train" / "x.npy", x)


MISTAKES = [
    (without("train/x.npy"), r"train.x\.npy is missing"),
    (without("val/x.npy"), r"val.x\.npy is missing"),
    (save("train/x.npy", np.zeros((40, 8, 12))), r"the shape \(40, 8, 12\): expected \(N, C, H, W\)"),
    (save("train/x.npy", np.zeros((0, 3, 8, 12))), "expected|not an array"),
    (save("train/x.npy", np.array([{"a": 1}], dtype=object)), "not an array of numbers"),
    (save("train/x.npy", np.zeros((40, 3, 8, 12), complex)), "is an array of complex128: expected floats or integers"),
    (save("train/x.npy", np.zeros((40, 3, 8, 12), bool)), "is an array of bool"),
    (save("train/x.npy", np.full((40, 3, 8, 12), "a")), "is an array of <U1"),
    (text("train/x.npy", b""), "not an array of numbers"),
    (text("train/x.npy", b"PK\x03\x04 an archive"), "not an array of numbers"),
    (
        text("train/x.npy", b"\x93NUMPY\x01\x00v\x00{'descr': __import__('os').system('false')}"),
        "not an array of numbers",
    ),
    (with_nan, r"train.x\.npy: row 17 holds nan or inf"),
    (save("val/x.npy", np.zeros((10, 3, 8, 8), np.float32)), r"\(10, 3, 8, 8\).*expected the same, except for N"),
    (save("val/x.npy", np.zeros((10, 3, 8, 12))), r"float64.*expected the same, except for N"),
    (save("train/angle.npy", np.zeros(40)), r"train has the conditions angle \(\), but val none"),
    (save("train/angle.npy", np.zeros(39)), r"the shape \(39,\): expected 40 rows, as x.npy has"),
    (save("train/angle.npy", np.float64(3)), r"the shape \(\): expected 40 rows"),
    (save("train/angle.npy", np.full(40, np.inf)), r"angle\.npy: row 0 holds nan or inf"),
    (save("train/previous.npy", np.zeros(40)), r"previous\.npy: expected the name of a condition"),
    (save("train/a.b.npy", np.zeros(40)), r"a\.b\.npy: expected the name of a condition"),
    (save("train/label.npy", np.linspace(0, 1, 40)), "expected one class per row, integers"),
    (save("train/label.npy", np.full(40, -2)), "from -2 to -2"),
    (save("train/label.npy", np.zeros((40, 2), int)), r"of shape \(40, 2\)"),
]


@pytest.mark.parametrize(("spoil", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_wrong_folder_is_refused_in_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(UserError, match=message) as refused:
        arrays(folder).prepare_data()
    assert "\n" not in str(refused.value)


def test_wrong_arguments_are_refused(folder, tmp_path):
    for options, message in (
        ({"path": str(tmp_path / "nowhere")}, "is not a folder: expected one with train/x.npy"),
        ({"shape": [3, 8, 8]}, r"arrays of \(3, 8, 12\), but dataset.shape is \(3, 8, 8\)"),
        ({"val_fraction": 0}, "val_fraction=0: expected a number above 0 and below 1"),
    ):
        with pytest.raises(UserError, match=message):
            arrays(folder, **options).prepare_data()


@pytest.mark.parametrize("names", [b"cat\n", b"cat\ncat\ndog\n", b"\xff\xfe"])
def test_names_of_classes_must_fit_the_labels(folder, names):
    for split, n in ("train", 40), ("val", 10):
        np.save(folder / split / "label.npy", np.arange(n) % 3)
    (folder / "classes.txt").write_bytes(names)
    with pytest.raises(UserError, match=r"classes\.txt"):
        _ = arrays(folder).classes
