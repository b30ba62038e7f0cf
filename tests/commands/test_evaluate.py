"""evaluate.py, as it is used: what it leaves behind, and what it says of the data and of the model."""

import json
import shutil

import pytest
import torch

from tests.helpers.commands import command, tiny

pytestmark = pytest.mark.filterwarnings("ignore")
FAST = ["metric.bpd.n=4", "metric.bpd.steps=2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from diffusion.commands import cli

    folder = tmp_path_factory.mktemp("trained") / "run"
    given = tiny(
        "trainer.max_steps=1", "callbacks.preview.n=0", "schedule.T=20", "sampler.steps=5", f"run.dir={folder}"
    )
    assert cli.main("train", given) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A run folder of this test's own."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def evaluate(capsys):
    def call(*given):
        done = command("evaluate", *given, capsys=capsys)
        assert done.code == 0, done.err
        return done

    return call


def rows(done):
    return [json.loads(line) for line in done.folder.read_text().splitlines()]


def edit(path, change):
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))


def test_the_commands_of_the_readme_leave_both_numbers(run, evaluate):
    evaluate(f"ckpt={run}", "metric=bpd", *FAST)
    done = evaluate(f"ckpt={run}", "metric.bpd.n=6", "metric.bpd.steps=null", "weights=raw")
    assert done.folder == run / "evaluation" / "results.jsonl"
    first, second = rows(done)
    assert (first["protocol"]["n"], first["protocol"]["steps"], first["model"]["weights"]) == (4, 2, "ema")
    assert (second["protocol"]["n"], second["protocol"]["steps"], second["model"]["weights"]) == (6, 20, "raw")
    assert first["value"] != second["value"]
    assert first["model"]["weights_sha256"] != second["model"]["weights_sha256"]
    assert len(list(done.folder.parent.glob("bpd_*.png"))) == 2
    assert "measured before" not in done.out


@pytest.mark.parametrize(
    "other", ["seed=1", "metric.bpd.n=5", "metric.bpd.steps=3", "weights=raw", "metric.bpd.variance=fixed_large"]
)
def test_a_new_measurement_is_a_new_row_and_a_repeated_one_is_reported(run, evaluate, other):
    line = [f"ckpt={run}", *FAST]
    evaluate(*line)
    changed = {word.partition("=")[0]: word for word in [*line, other]}.values()
    assert "measured before" not in evaluate(*changed).out
    again = evaluate(*line, "batch_size=3")
    first, second, third = rows(again)
    assert first["protocol"] == third["protocol"]
    assert third["value"] == pytest.approx(first["value"], rel=1e-5)
    assert (second["protocol"], second["model"]) != (first["protocol"], first["model"])
    assert (
        f"measured before with the same protocol ({first['date']}: {first['value']}); both rows are kept" in again.out
    )


def test_another_checkpoint_is_another_row(run, evaluate):
    evaluate(f"ckpt={run}/last", *FAST)
    contents = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    contents["ema_state_dict"]["denoiser.network.conv_in.weight"] += 1
    contents["global_step"] = 7
    (run / "checkpoints" / "best.ckpt").unlink()
    torch.save(contents, run / "checkpoints" / "best.ckpt")
    first, second = rows(evaluate(f"ckpt={run}/best", *FAST))
    assert [row["model"]["step"] for row in (first, second)] == [1, 7]
    assert first["model"]["weights_sha256"] != second["model"]["weights_sha256"]
    assert first["value"] != second["value"]


def test_the_same_data_give_no_notice_and_their_fingerprint_is_in_the_row(run, evaluate):
    done = evaluate(f"ckpt={run}", *FAST)
    assert "data differ" not in done.out
    assert rows(done)[0]["protocol"]["data"] == json.loads((run / "manifest.json").read_text())["data"]


def test_data_other_than_the_training_data_are_reported(run, evaluate):
    now = json.loads((run / "manifest.json").read_text())["data"]["fingerprint"]
    edit(run / "manifest.json", lambda contents: contents["data"].update(train=1490, val=10, fingerprint="0123"))
    done = evaluate(f"ckpt={run}", *FAST)
    expected = (
        f"the data differ from those of the training: fingerprint 0123 -> {now}, train 1490 -> 1500, val 10 -> 297"
    )
    assert expected in done.out.splitlines()
    edit(run / "manifest.json", lambda contents: contents["data"].update(train=1500, val=297))
    expected = (
        f"the data differ from those of the training: fingerprint 0123 -> {now} "
        "(same number of images, different content)"
    )
    assert expected in evaluate(f"ckpt={run}", *FAST).out.splitlines()
    assert rows(done)[0]["protocol"]["data"]["fingerprint"] == now


@pytest.mark.parametrize("change", [lambda contents: contents.pop("data"), lambda contents: contents.update(data=[1])])
def test_a_run_that_does_not_tell_its_data_is_measured(run, evaluate, change):
    edit(run / "manifest.json", change)
    assert "cannot check that the data are those of the training" in evaluate(f"ckpt={run}", *FAST).out


def test_a_checkpoint_alone_is_measured_beside_it(run, evaluate, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(run / "checkpoints" / "last.ckpt", alone / "x.ckpt")
    (alone / "manifest.json").write_text("{}")  # of something else
    done = evaluate(f"ckpt={alone / 'x.ckpt'}", *FAST)
    assert done.folder == alone / "evaluation" / "results.jsonl"
    assert "data are" not in done.out


@pytest.mark.parametrize("given", ["metric.bpd.n=1", "metric.bpd.steps=1001", "dataset.path=here", "weights=best"])
def test_nothing_is_written_before_a_refusal(run, capsys, given):
    before = sorted(run.rglob("*"))
    assert command("evaluate", f"ckpt={run}", given, capsys=capsys).code == 2
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(("clipping", "message"), [("static", None), ("dynamic", "dynamic(percentile=0.995)")])
def test_the_clipping_of_the_model_is_not_that_of_the_measurement(tmp_path, evaluate, capsys, clipping, message):
    given = tiny(
        "trainer.max_steps=1", "callbacks.preview.n=0", "schedule.T=20", "sampler.steps=5", f"clipping={clipping}"
    )
    run = command("train", *given, f"run.dir={tmp_path / 'run'}", capsys=capsys).folder
    done = evaluate(f"ckpt={run}", *FAST)
    notes = [line for line in done.err.splitlines() if line.startswith("note: ")]
    wanted = f"note: metric.bpd.clipping is static; that of the model, {message}, applies to sampling"
    assert notes == ([wanted] if message else [])
    assert rows(done)[0]["protocol"]["clipping"] == "static"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["metric.bpd.clipping=static"], "static"),
        (["metric.bpd.clipping=none"], "none"),
        (["metric.bpd.clipping=dynamic", "metric.bpd.clipping.percentile=0.9"], "dynamic(percentile=0.9)"),
    ],
    ids=str,
)
def test_the_clipping_of_the_measurement_is_named_with_the_number(run, evaluate, given, message):
    usual, done = rows(evaluate(f"ckpt={run}", *FAST))[0], evaluate(f"ckpt={run}", *FAST, *given)
    row = rows(done)[-1]
    assert row["protocol"]["clipping"] == message
    assert f"variational bound with clipping {message}, " in done.out
    assert (row["value"] == usual["value"]) == (message == "static")


@pytest.mark.parametrize("logger", [{"mine": {"class": "NotHere"}}, ["wandb"]])
def test_a_logger_that_is_not_here_loses_no_result(run, evaluate, logger):
    edit(run / "manifest.json", lambda manifest: manifest["config"].update(logger=logger))
    done = evaluate(f"ckpt={run}", *FAST)
    assert len(rows(done)) == 1
    assert "the results were not logged" in done.out
