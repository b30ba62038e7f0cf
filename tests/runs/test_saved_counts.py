"""A run that has reached its limit."""

import pytest

from tests.helpers.saved import contents

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("trainer.max_steps=1", "max_steps=1 reached (step 1 in "),
        ("trainer.max_minutes=1e-9", "max_minutes=1e-09 reached (step 1 in "),
    ],
)
def test_nothing_left_to_train(start, one_step, limit, message):
    done = start(limit, f"resume={one_step}", "resume_mode=full", name="one")
    assert done.code == 0
    assert f"nothing left to train: {message}" in done.out
    assert done.folder == one_step


def test_no_epoch_left_to_train(start):
    overrides = ["dataset.batch_size=750", "trainer.max_epochs=2"]
    first = start(*overrides)
    done = start(*overrides, "resume=auto")
    assert "nothing left to train: max_epochs=2 reached" in done.out
    assert done.folder == first.folder
    more = start(*overrides[:1], "trainer.max_epochs=3", "resume=auto")
    assert contents(more.folder)["global_step"] == 6
