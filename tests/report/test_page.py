"""The page: all of a run, all of it inside, nothing that a run says taken for markup, never above its size."""

import base64
import io
import json
import os
import re

import pytest
from PIL import Image

from diffusion.ground.errors import UserError
from diffusion.report import curves, page, settings
from diffusion.report.run import runs
from tests.helpers.report_page import Elements, written
from tests.helpers.run_folder import run_folder, write_picture, write_result

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def test_a_page_has_all_that_a_run_has(run):
    write_result(run, metric="bpd", value=2.5, summary="bpd 2.5", figure="bpd_0001.png")
    write_picture(run / "evaluation" / "bpd_0001.png", 20)
    write_picture(run / "evaluation" / "memorisation_0001.png", 20)
    write_picture(run / "evaluation" / "samplers.png", 20)
    (run / "evaluation" / "samplers.csv").write_text("sampler,steps,FID\nddim,20,12.5\n")
    write_picture(run / "samples" / "data.png", 20)
    found = Elements(written(run))
    for text in (
        *("Verdict", "Curves", "Samples", "Measurements", "Nearest neighbours", "Config", "Repeat", "Sessions"),
        *("step 50", "bpd 2.5", "12.5", "python train.py seed=0", f"python train.py rerun={run}"),
        *("network.widths", "trainer.max_steps", "torch", "validation loss against t", "how the first of them"),
    ):
        assert text in found.text or any(text in str(each) for _, each in found.found), text
    assert len(found.of("img")) == 6 * 4 + 4
    assert "Not made yet" not in found.text


def test_nothing_is_loaded_from_anywhere(run):
    text = written(run)
    for tag, attributes in Elements(text).found:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        assert all(value.startswith("data:image/") for key, value in attributes.items() if key == "src")
        assert all(value.startswith("#") for key, value in attributes.items() if key == "href")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert "default-src &#39;none&#39;" in policy


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_text_of_a_run_is_escaped(tmp_path):
    name = HOSTILE.replace("/", "")
    folder = run_folder(tmp_path / name, command=f"train.py {HOSTILE}", losses=[0.5])
    about = json.loads((folder / "manifest.json").read_text())
    about |= {"versions": {HOSTILE: HOSTILE}, "git": HOSTILE, "data": {"name": HOSTILE}}
    about["config"]["dataset"] |= {"path": HOSTILE, HOSTILE: [HOSTILE]}
    (folder / "manifest.json").write_text(json.dumps(about))
    (folder / "metrics.csv").write_text(f'step,"{HOSTILE.replace(chr(34), chr(34) * 2)}"\n1,2\n')
    write_result(folder, metric=HOSTILE, value=HOSTILE, summary=HOSTILE, date=HOSTILE, figure=f"../../{HOSTILE}")
    (folder / "evaluation" / "samplers.csv").write_text(f"{HOSTILE},b\n1,{HOSTILE}\n")
    write_picture(folder / "samples" / f"{name}_epoch_0001_step_0000050.png", 20)
    harmless = run_folder(tmp_path / "harmless", losses=[0.5])
    for folders in [folder], [folder, harmless]:
        found = Elements(written(*folders))
        assert len(found.of("script")) == 3
        assert not [tag for tag, attributes in found.found if "onerror" in attributes or "onclick" in attributes]
        assert all(each["src"].startswith("data:image/") for each in found.of("img"))
        assert HOSTILE in found.text


def test_the_curves_are_strict_json(run):
    with open(run / "metrics.csv", "a") as file:
        file.write("7,399,nan,inf,\n7,449,1e400,x,\n,,,,\nno,row\n")
    text = written(run)
    [data] = re.findall(r'<script type="application/json" id="curves">(.*?)</script>', text, re.S)
    charts = json.loads(data, parse_constant=lambda word: pytest.fail(word))
    assert [chart["title"] for chart in charts] == ["loss", "val/loss by quarters of t"]
    assert charts[0]["curves"][1]["x"] == [50, 100, 150, 200, 250, 300]


def test_a_page_stays_below_its_size_and_reports_omissions(tmp_path):
    folder = run_folder(tmp_path / "run", losses=[1 / (k + 1) for k in range(20)], size=300)
    text = written(folder)
    assert 0.8 * page.LIMIT < len(text.encode()) <= page.LIMIT
    assert "12 of 20 steps with pictures are shown" in text
    assert re.search(r"\d+ of 48 pictures are smaller than their files", text)


def test_too_many_runs_are_refused(run, monkeypatch):
    monkeypatch.setattr(page, "LIMIT", 60_000)
    with pytest.raises(UserError, match=r"report of 1 run\(s\) is larger than 0\.06 MB even without"):
        page.write([run])


def test_an_invalid_image_is_reported(run):
    (run / "samples" / "epoch_0006_step_0000300.png").write_bytes(b"no picture")
    assert "epoch_0006_step_0000300.png: not an image (UnidentifiedImageError" in written(run)


def test_several_runs_are_beside_each_other(tmp_path):
    folders = [run_folder(tmp_path / name, f"seed={seed}") for name, seed in (("one", 1), ("two", 2))]
    write_result(folders[1], metric="bpd", value=2.5)
    path = page.write(folders)
    assert path.parent == tmp_path
    assert path == page.write(folders[::-1])  # of the same runs
    found = Elements(path.read_text())
    assert "What differs between the runs" in found.text
    assert settings.between(runs(folders)) == {"seed": ["1", "2"]}
    assert {"class": "number", "data-value": "2.5"} in found.of("td")
    assert [chart for chart in curves.of_several(runs(folders))] == ["val/loss", "train/loss", "val/loss_t1of4"]


def test_an_image_is_that_of_the_file(run):
    source = run / "samples" / "epoch_0006_step_0000300.png"
    data = base64.b64encode(source.read_bytes()).decode()
    assert data in written(run)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (24, 24)
