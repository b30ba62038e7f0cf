"""Which t is drawn: the distribution, how evenly, and what is remembered."""

import pytest
import torch

from diffusion import schedule
from diffusion.ground.errors import UserError
from diffusion.losses.timesteps import LogNormal, LossSecondMoment, Stratified, Uniform

MADE = schedule.cosine(1000)


def alone(x):  # one process
    return x


def quarters(t):
    return ((t - 1) * 4 / 1000).long().bincount(minlength=4)


@pytest.mark.parametrize("timesteps", [Uniform(), Stratified()])
def test_every_step_is_drawn_equally_often(timesteps):
    t, importance = timesteps.draw(0, torch.arange(200_000), MADE)
    counts = t.long().bincount(minlength=1001)[1:]
    assert counts.double().mean() == 200
    assert (counts - 200).abs().max() < 6 * 200**0.5
    assert (importance == 1).all()


@pytest.mark.parametrize(("first", "n"), [(0, 16), (48, 16), (5, 16), (1_000_000, 64), (7 * 64 + 32, 32)])
def test_any_run_of_images_is_stratified(first, n):
    """A batch, a process's share of it or a group of accumulated batches: consecutive images have evenly spread t."""
    index = torch.arange(first, first + n)
    for seed in range(5):
        t, _ = Stratified().draw(seed, index, MADE)
        assert (quarters(t) - n / 4).abs().max() <= 2
        gaps = t.sort().values.diff()
        assert gaps.max() < 2.7 * 1000 / n  # three-distance theorem
    independent = torch.stack([quarters(Uniform().draw(seed, index, MADE)[0]) for seed in range(50)])
    assert (independent - n / 4).abs().max() > 2


def test_another_seed_begins_elsewhere_and_a_split_changes_nothing():
    index = torch.arange(32)
    t, _ = Stratified().draw(0, index, MADE)
    assert not torch.equal(t, Stratified().draw(1, index, MADE)[0])
    parts = [Stratified().draw(0, part, MADE)[0] for part in index.chunk(4)]
    assert torch.equal(t, torch.cat(parts))


@pytest.mark.parametrize("make", [schedule.linear, schedule.cosine, schedule.VP])
def test_log_normal_is_normal_in_log_sigma(make):
    made = make(1000)
    t, importance = LogNormal(mean=-0.5, std=1.0).draw(0, torch.arange(100_000), made)
    log_ratio = -made.log_snr(t) / 2
    assert log_ratio.mean() == pytest.approx(-0.5, abs=0.02)
    assert log_ratio.std() == pytest.approx(1.0, rel=0.02)
    assert t.min() >= 1
    assert t.max() <= 1000
    assert (t % 1 > 0).double().mean() > 0.9  # real times
    assert (importance == 1).all()


def learnt(seed=0):
    """A resampler that has seen losses proportional to sqrt(t)."""
    made, timesteps = schedule.linear(50), LossSecondMoment(history=4, uniform=0.01)
    for start in range(0, 800, 100):
        t, _ = timesteps.draw(seed, torch.arange(start, start + 100), made)
        timesteps.observe(t, t.sqrt(), gather=alone)
    every = torch.arange(1, 51).double().repeat(4)
    timesteps.observe(every, every.sqrt(), gather=alone)
    return timesteps, made


def test_resampling_follows_the_losses_and_stays_unbiased():
    timesteps, made = learnt()
    t, importance = timesteps.draw(1, torch.arange(200_000), made)
    share = t.long().bincount(minlength=51)[1:] / len(t)
    expected = torch.arange(1, 51).double().sqrt()
    expected = 0.99 * expected / expected.sum() + 0.01 / 50
    torch.testing.assert_close(share.double(), expected, rtol=0.1, atol=0)
    loss = torch.arange(1, 51).double().sqrt()[t.long() - 1]
    assert (importance * loss).mean() == pytest.approx(torch.arange(1, 51).double().sqrt().mean().item(), rel=0.005)
    assert (importance * loss).std() < 0.1 * loss.std()  # what it is for


def test_resampling_is_uniform_until_every_t_has_its_history():
    made, timesteps = schedule.linear(50), LossSecondMoment(history=2)
    t, importance = timesteps.draw(0, torch.arange(1000), made)
    timesteps.observe(t[:60], torch.ones(60), gather=alone)
    assert torch.allclose(importance, torch.ones(1000).double())
    assert torch.allclose(timesteps.probabilities(), torch.full((50,), 0.02).double())


def test_only_the_newest_losses_are_remembered():
    timesteps, _ = learnt()
    timesteps.observe(torch.full((5,), 3.0), torch.tensor([9.0, 1, 2, 3, 4]), gather=alone)
    assert timesteps.losses[2].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("timesteps", [Uniform(), Stratified(), LogNormal()])
def test_those_that_learn_nothing_ask_nothing_of_the_device(timesteps):
    timesteps.observe(torch.ones(3), torch.ones(3), gather=lambda x: pytest.fail("the device is waited for"))
    assert timesteps.state_dict() == {}
    timesteps.load_state_dict(learnt()[0].state_dict())  # of a run with another choice


def test_resampling_restarts_if_a_checkpoint_has_no_state():
    timesteps, _ = learnt()
    timesteps.load_state_dict({})
    assert timesteps.losses is None


def test_what_was_learnt_survives_the_checkpoint():
    timesteps, made = learnt()
    again = LossSecondMoment(history=4, uniform=0.01)
    again.load_state_dict(timesteps.state_dict())
    index = torch.arange(100)
    assert all(map(torch.equal, timesteps.draw(3, index, made), again.draw(3, index, made)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogNormal(std=0), "timesteps.std=0"),
        (lambda: LossSecondMoment(history=0), "timesteps.history=0"),
        (lambda: LossSecondMoment(uniform=0), "uniform=0"),
    ],
)
def test_options_are_checked(make, message):
    with pytest.raises(UserError, match=message):
        make()
