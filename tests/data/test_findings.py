"""What is said of a folder: short lines, whatever the files are called."""

from collections import Counter
from types import SimpleNamespace

from diffusion.data.findings import broken, listed, report


def lines(files, n_val, every=None, **layout):
    given = {"top": "", "rule": "by lot", "left_out": Counter(), "bare": [], "classes": None, **layout}
    given["class_of"] = lambda file: file.rpartition("/")[0] or None
    return list(report("my/set", SimpleNamespace(files=every or files, **given), files, n_val))


def test_a_plain_folder_is_two_lines():
    assert lines([f"{k}.png" for k in range(1200)], 60) == [
        "my/set: 1,200 pictures, no classes",
        "split by lot: train 1,140, val 60",
    ]


def test_classes_that_cannot_be_learnt_are_named():
    files = ["fox/1.png", "cat/1.png", "dog/1.png", "1.png", "cat/2.png", "dog/2.png"]
    names = ("cat", "dog", "fox", "owl")
    assert lines(files, 1, [*files, "owl/1.png", "owl/2.png"], classes=names, top="pets") == [
        "my/set: 6 pictures in pets, 4 classes: cat 2, dog 2, fox 1, owl 0",
        "split by lot: train 5, val 1",
        "pictures beside the class folders, without a class: 1",
        "classes of which no picture can be read: owl 2",
        "classes without pictures for training: fox",
    ]


def test_long_lists_are_cut_the_most_frequent_first():
    left_out = Counter({f".{k:02}": 1 + k % 3 for k in range(12)})
    [*_, last] = lines(["1.png", "2.png"], 1, left_out=left_out)
    assert last == "left out: .02 3, .05 3, .08 3, .11 3, .01 2, .04 2, .07 2, .10 2, .00 1, .03 1, and 2 more"


def test_a_line_stays_one_whatever_a_file_is_called():
    assert listed(["a\nb", "c\x1b[31m", "gr\udcfc", "数字"]) == r"a\nb, c\x1b[31m, gr\udcfc, 数字"
    assert broken({"b.png": "cut", "a.png": "EOF\n"}) == r"2 broken images: a.png (EOF\n), b.png (cut)"
