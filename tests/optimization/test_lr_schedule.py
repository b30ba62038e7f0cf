"""The learning rate of each step: the warm-up, and the schedule."""

import pytest

from diffusion.ground.errors import UserError
from diffusion.optimization.lr_schedule import Constant, CosineDecay, InverseSqrt
from diffusion.optimization.optimizers import AdamW


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (Constant(), [1, 1, 1, 1]),
        (CosineDecay(steps=100, final=0.1), [1, 0.55, 0.1, 0.1]),
        (InverseSqrt(steps=25), [1, 2**-0.5, 0.5, 0.25]),
    ],
)
def test_learning_rate_schedules_count_optimiser_steps(decay, expected):
    plan = AdamW(lr=1.0, warmup_steps=0, decay=decay)
    assert [plan.factor(step) for step in (0, 50, 100, 400)] == pytest.approx(expected)
    warm = AdamW(lr=1.0, warmup_steps=10, decay=decay)
    assert warm.factor(4) == pytest.approx(0.5 * decay(4))


def test_a_cosine_falls_to_the_end_of_the_run_or_to_the_number_it_is_given():
    assert [CosineDecay()(step, 100) for step in (0, 50, 100, 101)] == pytest.approx([1, 0.5, 0, 0])
    assert CosineDecay(steps=50)(50, 100) == 0
    assert [CosineDecay(final=0.2)(step) for step in (0, 10**6)] == [1, 1], "not before the end is known"
    with pytest.raises(UserError, match=r"lr_schedule.steps=None: expected a whole number, 1 or more"):
        InverseSqrt(steps=None)


def test_a_warm_up_is_at_most_a_share_of_the_run():
    plan = AdamW(lr=1.0, warmup_steps=500)
    assert [plan.warmup(end) for end in (None, 10_000, 1000, 999, 10, 1)] == [500, 500, 500, 499, 5, 0]
    assert [plan.factor(step, 4) for step in range(4)] == [0.5, 1, 1, 1]
    assert AdamW(warmup_steps=500, warmup_share=None).warmup(10) == 500
    assert AdamW(warmup_steps=500, warmup_share=0.1).warmup(100) == 10
