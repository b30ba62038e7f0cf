"""The word `keep`, which the command brings to numbers of states."""

import pytest

from diffusion.ground.errors import UserError
from diffusion.sampling.kept_states import kept_states


@pytest.mark.parametrize(
    ("keep", "states"), [(1, [10]), (3, [8, 9, 10]), ("3", [8, 9, 10]), ("all", [*range(11)]), ("every:4", [2, 6, 10])]
)
def test_a_name_means_numbers_that_end_with_the_result(keep, states):
    assert [*kept_states(keep, 10)] == states


@pytest.mark.parametrize("keep", [0, -1, 12, "some", "every:0", "every:x", 1.5])
def test_invalid_keep_is_rejected(keep):
    with pytest.raises(UserError, match=rf"keep={keep}: expected 1 to 11"):
        kept_states(keep, 10)
