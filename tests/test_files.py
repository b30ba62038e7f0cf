"""JSON that every reader takes."""

import json
import math

import pytest

from diffusion.files import json_contents, json_text, read_json, write_json


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


def test_json_holds_no_word_that_is_not_json(tmp_path):
    contents = {"interval": [0, math.inf], "least": -math.inf, "loss": math.nan, "deep": [{"x": (1.5, None, True)}]}
    write_json(tmp_path / "x.json", contents)
    plain = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert plain == {"interval": [0, "inf"], "least": "-inf", "loss": "nan", "deep": [{"x": [1.5, None, True]}]}


def test_json_reads_back_as_the_numbers_it_was_made_from(tmp_path):
    write_json(tmp_path / "x.json", {"interval": [0, math.inf], "least": -math.inf, "name": "größe", "loss": math.nan})
    loss = (back := read_json(tmp_path / "x.json")).pop("loss")
    assert back == {"interval": [0, math.inf], "least": -math.inf, "name": "größe"}
    assert math.isnan(loss)
    assert json_contents(json_text([math.inf], indent=None)) == [math.inf]


def test_json_of_earlier_versions_is_read_too():
    assert json_contents('{"interval": [0, Infinity]}') == {"interval": [0, math.inf]}


@pytest.mark.parametrize(("text", "said"), [(b"", "Expecting value"), (b"{", "Expecting"), (b'"\xff"', "decode")])
def test_what_is_no_json_is_a_value_error(text, said, tmp_path):
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(ValueError, match=said):
        read_json(tmp_path / "x.json")
