"""Files that are whole or not there, on Windows too, and JSON that every reader takes."""

import json
import math
import os
import sys

import pytest

from diffusion.ground.files import atomic, atomic_folder, give_name, json_contents, json_text, read_json, write_json
from tests.helpers import windows

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the imitation looks into /proc")


@on_linux
def test_windows_flushes_only_what_was_opened_to_be_written(tmp_path, monkeypatch):
    windows.imitate(monkeypatch)
    with atomic(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    with atomic(tmp_path / "file") as temporary:
        temporary.write_text("anew")
    assert (tmp_path / "file").read_text() == "anew"
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "part").mkdir()
        (temporary / "part" / "file").write_text("whole")
    assert (tmp_path / "folder" / "part" / "file").read_text() == "whole"


@on_linux
def test_a_second_name_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse_link(*_):
        raise OSError("no links here")

    windows.imitate(monkeypatch)
    monkeypatch.setattr(os, "link", refuse_link)
    (tmp_path / "file").write_text("whole")
    give_name(tmp_path / "file", tmp_path / "last")
    assert (tmp_path / "last").read_text() == "whole"
    assert {file.name for file in tmp_path.iterdir()} == {"file", "last"}


def broken(writing):
    with writing as temporary:
        inside = temporary / "half" if temporary.is_dir() else temporary
        inside.write_text("ha")
        raise KeyboardInterrupt


def test_what_breaks_leaves_what_was_there(tmp_path):
    (tmp_path / "file").write_text("before")
    for writing in atomic(tmp_path / "file"), atomic_folder(tmp_path / "folder"):
        with pytest.raises(KeyboardInterrupt):
            broken(writing)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


@on_linux
@pytest.mark.parametrize("deep", ["", "part/"])
def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, deep):
    synced, real = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}")) or real(number)
    )
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / deep).mkdir(exist_ok=True)
        (temporary / deep / "file").write_text("whole")
        monkeypatch.setattr(os, "rename", lambda *paths, real=os.rename: synced.append("renamed") or real(*paths))
    assert synced.index(str(temporary / deep / "file")) < synced.index("renamed") < synced.index(str(tmp_path))


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


def test_json_has_no_token_outside_the_standard(tmp_path):
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


@pytest.mark.parametrize("name", ["inf", "-inf", "nan", "'inf'", "''nan''", "'", "information"])
def test_a_text_that_reads_like_such_a_number_stays_a_text(name):
    assert json_contents(json_text({"name": name, "names": [name]})) == {"name": name, "names": [name]}


def test_json_of_earlier_versions_is_read_too():
    assert json_contents('{"interval": [0, Infinity]}') == {"interval": [0, math.inf]}


@pytest.mark.parametrize(("text", "message"), [(b"", "Expecting value"), (b"{", "Expecting"), (b'"\xff"', "decode")])
def test_what_is_no_json_is_a_value_error(text, message, tmp_path):
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "x.json")
