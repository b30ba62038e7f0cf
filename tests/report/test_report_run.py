"""The runs that are read for a report."""

import os

from diffusion.report.run import runs
from tests.helpers.run_folder import run_folder


def test_runs_of_one_name_are_distinguished(tmp_path):
    folders = [run_folder(tmp_path / data / "first") for data in ("digits", "mnist")]
    assert [run.name for run in runs(folders)] == [os.path.join("digits", "first"), os.path.join("mnist", "first")]
