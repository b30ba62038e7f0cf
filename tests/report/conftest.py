"""A run to report on."""

import pytest

from tests.helpers.run_folder import run_folder


@pytest.fixture
def run(tmp_path):
    return run_folder(tmp_path / "run")
