"""results.jsonl: one row for each measurement, whoever else is writing, whatever is there."""

import json
import threading

import pytest
from matplotlib.figure import Figure
from PIL import Image

from diffusion.evaluation.results import FORMAT, Results
from diffusion.ground.errors import UserError

ROW = {"metric": "bpd", "value": 4.2, "protocol": {"n": 40, "seed": 0}, "model": {"weights_sha256": "a"}}


def lines(results):
    return results.path.read_text().splitlines()


def test_every_row_is_kept_and_has_its_own_figure(tmp_path):
    results = Results(tmp_path / "new" / "folder")
    for value in 1.0, 2.0, float("inf"):
        results.add({**ROW, "value": value}, Figure())
    assert [json.loads(line)["value"] for line in lines(results)] == [1.0, 2.0, "inf"]
    assert [row["value"] for row in results.rows()] == [1.0, 2.0, float("inf")]
    pictures = [row["figure"] for row in results.rows()]
    assert pictures == ["bpd_0001.png", "bpd_0002.png", "bpd_0003.png"]
    assert all(Image.open(results.path.with_name(picture)).size for picture in pictures)


def test_a_figure_without_a_row_is_not_overwritten(tmp_path):
    results = Results(tmp_path)
    (tmp_path / "bpd_0007.png").write_bytes(b"kept")
    results.add(ROW, Figure())
    assert results.rows()[0]["figure"] == "bpd_0008.png"
    assert results.rows()[0]["format"] == FORMAT
    assert (tmp_path / "bpd_0007.png").read_bytes() == b"kept"


@pytest.mark.parametrize("text", [b"no json", b'[1]\n"x"\n\xff', b'{"metric": "bpd"}', b'{"model": 3}\n'])
def test_what_is_in_the_file_stays_as_it_is(tmp_path, text):
    (tmp_path / "results.jsonl").write_bytes(text)
    results = Results(tmp_path)
    assert results.add(ROW, Figure()) == []
    assert results.path.read_bytes().startswith(text)
    assert json.loads(results.path.read_bytes().splitlines()[-1])["value"] == 4.2


def test_the_same_measurement_is_found(tmp_path):
    results = Results(tmp_path)
    others = {"metric": "fid"}, {"protocol": {"n": 41, "seed": 0}}, {"model": {"weights_sha256": "b"}}
    for other in others:
        assert results.add({**ROW, **other}, Figure()) == []
    assert results.add({**ROW, "value": 4.1}, Figure()) == []
    assert [row["value"] for row in results.add({**ROW, "model": {"weights_sha256": "a", "step": 1}}, Figure())] == [
        4.1
    ]
    assert len(results.rows()) == 5


def test_several_may_add_at_the_same_time(tmp_path):
    def add(value):
        Results(tmp_path).add({**ROW, "value": value}, Figure())

    threads = [threading.Thread(target=add, args=[value]) for value in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = Results(tmp_path).rows()
    assert sorted(row["value"] for row in rows) == [*range(12)]
    assert sorted(row["figure"] for row in rows) == [f"bpd_{number:04d}.png" for number in range(1, 13)]


def test_an_unwritable_directory_is_rejected(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "strange" / "results.jsonl").mkdir(parents=True)
    for name in "file", "file/below", "strange":
        with pytest.raises(UserError, match=r"cannot be written .*; choose another output="):
            Results(tmp_path / name)
    results = Results(tmp_path)
    results.add(ROW, Figure())
    before = results.path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("diffusion.ground.files.os.fsync", full)
        with pytest.raises(UserError, match=r"results.jsonl: the result was not written \(No space left on device\)"):
            results.add(ROW, Figure())
    assert results.path.read_bytes() == before
