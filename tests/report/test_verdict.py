"""What a report says of a run follows from its numbers."""

import math

import pytest

from diffusion.report import verdict
from diffusion.report.run import runs
from tests.helpers.run_folder import run_folder, write_metrics, write_result


def reported(*folders):
    return {each.text: each.kind for each in verdict.findings(runs(folders)[0])}


def test_a_run_that_went_well(tmp_path):
    found = reported(run_folder(tmp_path / "run"))
    assert found == {
        "Finished, max_steps=300 reached: 300 steps, 38,400 images, 1.1 minutes, 600 images/s including "
        "validations and images.": "good",
        "val/loss is 0.11 at step 300, the lowest of 6 validations; -26.7% in the last third of the steps: still "
        "decreasing.": "good",
        "val/loss is 4% below train/loss, 0.115 on average over the last third of the logged values (single batches, "
        "weights not averaged).": "plain",
        "No step was skipped.": "plain",
    }


@pytest.mark.parametrize(
    ("options", "given", "text"),
    [
        ([], {"step": 200}, "Not finished, or without a limit; last checkpoint: 200 steps"),
        (["trainer.max_steps=null"], {}, "Not finished, or without a limit"),
        (
            [],
            {"losses": [0.9, 0.2, 0.2, 0.3, 0.4, 0.5]},
            "150.0% above its lowest, 0.2 at step 100; +66.7% in the last",
        ),
        (
            [],
            {"losses": [0.9, 0.2, 0.2, 0.2, 0.2, 0.2005]},
            "0.2% above its lowest, 0.2 at step 100; constant in the last",
        ),
        ([], {"losses": [0.9]}, "val/loss is 0.9 at step 50, the lowest of 1 validations."),
        ([], {"skipped": 3}, "3 steps were skipped"),
        (
            [],
            {"losses": [0.9, math.nan, 0.5, 0.4, 0.3, math.inf]},
            "Not finite in metrics.csv: train/loss 2 times, val",
        ),
        (["loss=l1"], {}, "train/loss has another objective"),
        (["weighting=min_snr"], {}, "train/loss has another objective"),
        (["timesteps=log_normal"], {}, "train/loss has another objective"),
    ],
)
def test_a_run_that_did_not(options, given, text, tmp_path):
    assert any(text in each for each in reported(run_folder(tmp_path / "run", *options, **given)))


def test_an_unreadable_checkpoint_is_reported(tmp_path):
    folder = run_folder(tmp_path / "run")
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"nothing")
    [run] = runs([folder])
    assert run.saved is None
    assert "not a checkpoint of this program" in run.unread[0]
    assert "There is no checkpoint that records the progress of the run." in reported(folder)


def test_additional_metrics_are_reported(tmp_path):
    folder = run_folder(tmp_path / "run")
    write_metrics(folder, [0.5, 0.4])
    with open(folder / "metrics.csv") as file:
        head, *rows = file.read().splitlines()
    (folder / "metrics.csv").write_text("\n".join([f"{head},train/gap", *(f"{row},0.01" for row in rows)]))
    assert any("0.01 above that of the exact denoiser" in text for text in reported(folder))


def test_the_newest_measurement_of_a_metric_is_reported(tmp_path):
    folder = run_folder(tmp_path / "run")
    write_result(folder, metric="bpd", value=3.0, summary="bpd 3.0", date="2026-01-01")
    write_result(folder, metric="bpd", value=2.5, summary="bpd 2.5", date="2026-01-02")
    assert "Measured: bpd 2.5 (2026-01-02)." in reported(folder)
    assert not any("3.0" in text for text in reported(folder))


def test_several_runs_are_compared_where_their_data_are_the_same(tmp_path):
    one, other = run_folder(tmp_path / "one"), run_folder(tmp_path / "other", losses=[0.5, 0.1])
    [found] = verdict.compared(runs([one, other]))
    assert found.text == "other ends with the lowest val/loss, 0.1; one has 0.11, 10.0% more."
    text = (other / "manifest.json").read_text()
    (other / "manifest.json").write_text(text.replace('"f0"', '"f1"'))
    [found] = verdict.compared(runs([one, other]))
    assert found.text == "The runs have different data: their val/loss cannot be compared."


def test_numbers_of_unlike_protocols_are_not_compared(tmp_path):
    folders = [run_folder(tmp_path / name) for name in ("one", "two", "three")]
    for folder, n, value in zip(folders, (1000, 1000, 2000), (3.0, 2.0, 1.0), strict=True):
        write_result(folder, metric="fd", value=value, protocol={"n": n, "reference": {"split": "train"}})
    values, reasons = verdict.measured(runs(folders))
    assert values == {"fd": [3.0, 2.0, None]}
    assert reasons == ["fd of three is not comparable with that of one: n 1000 -> 2000."]
    assert reasons[0] in {each.text for each in verdict.compared(runs(folders))}
