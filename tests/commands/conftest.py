"""A training that other commands go on with."""

import pytest

from tests.helpers.processes import SMALL, succeed


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs of digits, logged to W&B offline."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    made, done = succeed("train.py", *SMALL, "trainer.max_epochs=2", "trainer.log_every_n_steps=1", f"run.dir={folder}")
    assert made == folder
    return folder, done
