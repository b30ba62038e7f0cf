"""When a run is validated, by a clock of the test's own; and that its weights never know."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from diffusion.training.cadence import Cadence
from diffusion.training.callbacks import validations
from diffusion.training.callbacks.validations import Validations
from tests.helpers.painter import Painter
from tests.helpers.resumed import assert_same_end, contents
from tests.helpers.resumed import fit as train
from tests.helpers.two_processes import run_script

pytestmark = pytest.mark.filterwarnings("ignore")


class Clock(Callback):
    """A step takes a second, the k-th validation costs[k], the last of them for all that follow."""

    def __init__(self, monkeypatch, *costs):
        monkeypatch.setattr(validations, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.now = 1000.0
        self.costs = list(costs)
        self.validated, self.drawn = [], []  # after which steps
        self.spent = 0.0

    def on_before_backward(self, *_):
        self.now += 1

    def on_validation_epoch_start(self, trainer, pl_module):
        self.validated.append(trainer.global_step)
        cost = self.costs.pop(0) if len(self.costs) > 1 else self.costs[0]
        self.now += cost
        self.spent += cost

    def on_validation_end(self, trainer, pl_module):
        if trainer.callbacks[0].drawing:
            self.drawn.append(trainer.global_step)


def fit(clock, validate=None, preview=None, ckpt=None, **limits) -> Trainer:
    """An epoch has four batches."""
    trainer = Trainer(
        accelerator="cpu", devices=1, callbacks=[Validations(validate, preview), clock], logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0,
        **limits,
    )  # fmt: skip
    trainer.fit(Painter(), ckpt_path=ckpt)
    return trainer


def test_by_default_the_first_step_is_validated_and_then_a_tenth_of_the_time_is_spent(monkeypatch):
    clock = Clock(monkeypatch, 2)
    fit(clock, max_steps=100)
    assert clock.validated == clock.drawn == [1, 19, 37, 55, 73, 91, 100]
    clock = Clock(monkeypatch, 0.01)
    fit(clock, max_steps=6)  # seldom enough by nature
    assert clock.validated == [1, 2, 3, 4, 5, 6]


def test_a_costly_validation_is_followed_by_a_long_training(monkeypatch):
    clock = Clock(monkeypatch, 1, 4, 0.5)
    fit(clock, max_steps=60)
    assert clock.validated == [1, 10, 46, 51, 56, 60]


def test_a_long_run_is_not_validated_ever_so_often(monkeypatch):
    clock = Clock(monkeypatch, 0.001)
    fit(clock, max_steps=2000)
    assert clock.validated[:100] == list(range(1, 101))  # 0.9% of the time
    assert len(clock.validated) < 420
    distances = [after - before for before, after in zip(clock.validated, clock.validated[1:-1], strict=False)]
    assert max(distances) == 20  # 1% of what has been trained


@pytest.mark.parametrize(
    ("validate", "limits", "expected"),
    [
        (Cadence(every_n_steps=5), {"max_steps": 12}, [5, 10, 12]),
        (Cadence(every_n_steps=6), {"max_steps": 12}, [6, 12]),
        (Cadence(every_n_epochs=2), {"max_steps": 18}, [8, 16, 18]),
        (Cadence(every_n_epochs=2), {"max_epochs": 5}, [8, 16, 20]),
        (Cadence(every_n_epochs=2), {"max_epochs": 4}, [8, 16]),
        (Cadence(every_n_minutes=0.1), {"max_steps": 20}, [6, 12, 18, 20]),
        (Cadence(every_n_steps=5, every_n_minutes=0.05, every_n_epochs=1), {"max_steps": 12}, [3, 4, 5, 8, 10, 12]),
        (Cadence(every_n_steps=3), {"max_steps": 4, "accumulate_grad_batches": 2}, [3, 4]),
        (Cadence(every_n_epochs=1), {"max_epochs": 2, "accumulate_grad_batches": 3}, [2, 4]),
    ],
)
def test_a_cadence_that_is_given_is_obeyed_and_the_end_is_validated(monkeypatch, validate, limits, expected):
    clock = Clock(monkeypatch, 100)
    fit(clock, validate, **limits)
    assert clock.validated == clock.drawn == expected


def test_the_end_by_time_is_validated_with_images(monkeypatch):
    class Stop(Clock):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 6  # as Lightning's timer does

    clock = Stop(monkeypatch, 1)
    fit(clock, Cadence(every_n_steps=4), Cadence(every_n_steps=100), max_steps=100)
    assert (clock.validated, clock.drawn) == ([4, 6], [6])


@pytest.mark.parametrize(
    ("validate", "preview", "validated", "drawn"),
    [
        (Cadence(every_n_steps=2), Cadence(every_n_steps=4), [2, 4, 6, 8, 10, 11], [4, 8, 11]),
        (Cadence(every_n_epochs=2), Cadence(every_n_steps=3), [3, 6, 8, 9, 11], [3, 6, 9, 11]),
        (Cadence(every_n_steps=5), Cadence(every_n_minutes=0.1), [5, 6, 10, 11], [6, 11]),
        (Cadence(), Cadence(every_n_epochs=1), [1, 4, 8, 11], [4, 8, 11]),
    ],
)
def test_images_have_their_own_interval(monkeypatch, validate, preview, validated, drawn):
    clock = Clock(monkeypatch, 2)
    fit(clock, validate, preview, max_steps=11)
    assert (clock.validated, clock.drawn) == (validated, drawn)


@pytest.mark.parametrize("first", [1, 8, 19, 25])
def test_a_resumed_run_has_the_clock_of_the_one_before(monkeypatch, tmp_path, first):
    """Saved at its end, it has been validated there: what counts is that no other step is."""
    clock = Clock(monkeypatch, 2)
    fit(clock, max_steps=first).save_checkpoint(tmp_path / "a.ckpt")
    before = clock.validated
    clock = Clock(monkeypatch, 2)
    fit(clock, max_steps=60, ckpt=tmp_path / "a.ckpt")
    expected = list(range(before[-1] + 18, 60, 18))
    assert clock.validated == [*expected, 60]


def test_the_clock_is_looked_at_in_few_steps(monkeypatch):
    """All processes meet there."""
    looks = []

    class Meeting(Clock):
        def setup(self, trainer, pl_module, stage):
            broadcast = trainer.strategy.broadcast
            monkeypatch.setattr(
                trainer.strategy, "broadcast", lambda value, *_: looks.append(value) or broadcast(value)
            )

    clock = Meeting(monkeypatch, 100)
    fit(clock, max_steps=890)
    assert clock.validated == [1, 890]
    assert len(looks) < 30
    looks.clear()
    fit(Meeting(monkeypatch, 1), Cadence(every_n_steps=7), Cadence(every_n_epochs=2), max_steps=20)
    assert looks == []


def test_weights_do_not_know_when_they_were_validated(tmp_path):
    """Twelve steps with dropout, flips and an average; sampled on the way."""
    cadences = {
        "seldom": Cadence(every_n_epochs=100),
        "each": Cadence(every_n_steps=1),
        "third": Cadence(every_n_steps=3),
        "automatic": Cadence(),
    }
    for name, validate in cadences.items():
        watch = train(tmp_path / name, validate=validate)
        assert len(watch.validations) == {"seldom": 1, "each": 13, "third": 5}.get(name, len(watch.validations))
        assert_same_end(contents(tmp_path / name), contents(tmp_path / "seldom"))


SCRIPT = """
import sys, time
from pathlib import Path
import torch
from lightning.pytorch import Callback, Trainer
from diffusion.training.callbacks import validations
from tests.helpers.painter import Painter

class Watch(Callback):
    steps, drawn = [], []

    def on_train_batch_start(self, trainer, *_):
        time.sleep(0.01 * (1 + 5 * trainer.global_rank))

    def on_validation_epoch_start(self, trainer, *_):
        if not trainer.sanity_checking:
            self.steps.append(trainer.global_step)
            self.drawn.append(trainer.callbacks[0].drawing)
            time.sleep(0.03)

if __name__ == "__main__":
    real = time.monotonic
    watch, when = Watch(), validations.Validations()
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_steps=80, callbacks=[when, watch], logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )
    if trainer.global_rank == 1:  # its clock has another speed
        validations.time = type("Time", (), {"monotonic": staticmethod(lambda: 7 * real())})
    trainer.fit(Painter())
    seen = [watch.steps, watch.drawn, trainer.lightning_module.weight]
    torch.save(seen, Path(sys.argv[1], f"{trainer.global_rank}.pt"))
"""


@pytest.mark.slow
def test_rank_0_decides_for_two_processes(tmp_path):
    run_script(SCRIPT, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first == second
    assert first[0][0] == 1
    assert first[0][-1] == 80
    assert 3 <= len(first[0]) < 80
