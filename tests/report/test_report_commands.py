"""The commands of a report: those that were typed, and those that make what is missing."""

import pytest

from tests.helpers.report_page import Elements, written
from tests.helpers.run_folder import run_folder


def test_missing_parts_are_reported_with_the_command_that_makes_them(run):
    for name in "metrics.csv", "checkpoints/last.ckpt":
        (run / name).unlink()
    for file in (run / "samples").iterdir():
        file.unlink()
    text = Elements(written(run)).text
    assert f"python evaluate.py ckpt={run} metric=" in text
    assert f"python compare.py ckpt={run}" in text
    assert "There are no curves: metrics.csv is missing or empty." in text
    assert "There are none: callbacks=none, or none was due." in text


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("diffusion-train seed=1", "diffusion-train seed=1"),
        ("__main__.py train 'a b=1'", "python -m diffusion train 'a b=1'"),
        ("ipykernel_launcher.py -f x.json", None),
    ],
)
def test_the_command_is_as_it_was_typed(typed, shown, tmp_path):
    text = Elements(written(run_folder(tmp_path / "run", command=typed))).text
    assert ("as first typed" in text) == (shown is not None)
    assert shown is None or shown in text
