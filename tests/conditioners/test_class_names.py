"""Which class `y=` means, whatever classes are called."""

import unicodedata

import pytest

from diffusion.commands import cli
from diffusion.conditioners.class_names import read
from diffusion.ground.errors import UserError
from diffusion.runs import compose as configs

DIGITS = [str(digit) for digit in range(10)]
FOLDERS = ["001", "002", "003"]
ANIMALS = ["cat", "dog", "größe 数", "a, b"]
ODD = ["1.0", "1e3", "all", "false", "null", "true"]
WITH_ONE = ["2", "cat", "dog"]

ASKED = [
    ("1", DIGITS, [1]),
    ("[7,3]", DIGITS, [7, 3]),
    ("all", DIGITS, [*range(10)]),
    ("7.0", DIGITS, [7]),
    ("1", FOLDERS, [0]),
    ("3", FOLDERS, [2]),
    ("003", FOLDERS, [2]),
    ("[ 2, 001]", FOLDERS, [1, 0]),
    ("1", ["10", "2", "1"], [2]),
    ("1", ["01", "1"], [1]),
    ("-1", ["-1", "0", "1"], [0]),
    ("0.5", ["0.25", "0.50"], [1]),
    ("20250101123456789", ["20250101123456788", "20250101123456789"], [1]),
    ("cat", ANIMALS, [0]),
    ("1", ANIMALS, [1]),
    ("größe 数", ANIMALS, [2]),
    (unicodedata.normalize("NFD", "größe 数"), ANIMALS, [2]),
    ("a, b", ANIMALS, [3]),
    ("[dog,'a, b',cat]", ANIMALS, [1, 3, 0]),
    ("['cat',\"dog\"]", ANIMALS, [0, 1]),
    ("'cat'", ANIMALS, [0]),
    ("[dog's,cat's]", ["cat's", "dog's"], [1, 0]),
    ("[a]", ["[a]", "a"], [0]),
    ("true", ODD, [5]),
    ("1.0", ODD, [0]),
    ("1e3", ODD, [1]),
    ("null", ODD, [4]),
    ("all", ODD, [2]),
    ("[true,false,1000]", ODD, [5, 3, 1]),
    ("2", WITH_ONE, [0]),
    ("dog", WITH_ONE, [2]),
    ("null", DIGITS, None),
]


@pytest.mark.parametrize(("text", "names", "labels"), ASKED, ids=lambda value: str(value))
def test_a_class_is_matched_by_name_then_by_number_then_by_index(text, names, labels):
    assert read("y", text, names) == labels


REFUSED = [
    ("10", DIGITS, "y=10: no such class; choose among 0, 1, 2, 3"),
    ("[1,10]", DIGITS, "y=10: no such class"),
    ("0", FOLDERS, "y=0: no such class; choose among 001, 002, 003, or all"),
    ("1.00", ["1", "01", "1.0"], "y=1.00: no such class"),
    ("0", ["1", "a, b"], "choose among 1, 'a, b', or all"),
    ("0", WITH_ONE, "y=0: no such class; choose among 2, cat, dog, or all"),
    ("4", ANIMALS, "y=4: no such class; choose among 0 (cat), 1 (dog)"),
    ("-1", ANIMALS, "y=-1: no such class"),
    ("0.5", ANIMALS, "y=0.5: no such class"),
    ("1e999999999", ANIMALS, "no such class"),
    ("nan", DIGITS, "y=nan: no such class"),
    ("1_0", [*DIGITS, "10"], "y=1_0: no such class"),
    ("Tabby", ["siamese", "tabby"], "did you mean tabby?"),
    ("cat,dog", ANIMALS, "a list is written y=[a,b]"),
    ("[]", ANIMALS, "y=[]: the list is empty; choose among"),
    ("", ANIMALS, "y=: no such class"),
    ("[cat,,dog]", ANIMALS, "y=: no such class"),
    ("[cat", ANIMALS, "y=[cat: no such class"),
    ("cat", [f"n{number:04d}" for number in range(1000)], "... (1000 in all), or all"),
]


@pytest.mark.parametrize(("text", "names", "message"), REFUSED, ids=lambda value: str(value)[:20])
def test_an_unknown_class_is_rejected_with_the_list(text, names, message):
    with pytest.raises(UserError) as refused:
        read("y", text, names)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 1000


AS_TYPED = ["1", "1.0", "1e3", "true", "null", "007", "[a,b]", "[001,1e3]", "a, b", "größe 数", "(a)", "${x}", "'a'"]


@pytest.mark.parametrize("text", AS_TYPED)
def test_the_command_line_leaves_a_class_as_it_was_typed(text):
    assert configs.compose("sample", [f"y={text}"]).y == text


def test_without_a_class_there_is_none():
    assert configs.compose("sample").y is None


@pytest.mark.parametrize(
    ("text", "jobs"),
    [
        ("1.0,1e3, true", ["1.0", "1e3", "true"]),
        ("[1,007],all", ["[1,007]", "all"]),
        ("'a, b',c", ["'a, b'", "c"]),
        ("größe 数", ["größe 数"]),
        ("range(0,3)", ["0", "1", "2"]),
        ("", [""]),
    ],
)
def test_multirun_takes_several_classes_as_they_were_typed(text, jobs, monkeypatch):
    run = []
    monkeypatch.setattr(cli, "_run_job", lambda arguments: (run.append(arguments) or 0, "folder"))
    cli.main("sample", ["-m", "ckpt=run", f"y={text}"])
    assert run == [["ckpt=run", f"y={job}"] for job in jobs]
