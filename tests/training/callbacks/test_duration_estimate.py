"""What a run says of the minutes that it will take, against a clock that is known."""

import pytest
from lightning.pytorch import Trainer

from diffusion.training.cadence import Cadence
from diffusion.training.callbacks import duration_estimate
from diffusion.training.callbacks.duration_estimate import Forecast
from diffusion.training.callbacks.progress import Progress
from diffusion.training.callbacks.validations import Validations
from tests.helpers.learner import Learner


class Clock:
    """0.5 s a step, 30 s a validation."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(duration_estimate.time, "monotonic", lambda: self.now)


@pytest.fixture
def reported(monkeypatch, capsys):
    clock = Clock(monkeypatch)

    class Timed(Learner):
        def training_step(self, batch, batch_idx):
            clock.now += 0.5
            return super().training_step(batch, batch_idx)

        def on_validation_end(self):
            clock.now += 30

    def run(validate, preview=None, **options):
        capsys.readouterr()
        trainer = Trainer(
            accelerator="cpu", callbacks=[Forecast(), Validations(validate, preview), Progress()], logger=False,
            enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0, **options,
        )  # fmt: skip
        trainer.fit(Timed())
        return [line for line in capsys.readouterr().out.splitlines() if " a step" in line]

    return run


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("validate", "preview", "line"),
    [
        ({"every_n_steps": 12}, {}, "about 85 seconds for 170 more steps (0.5 s a step, without validations)"),
        ({"every_n_steps": 12}, {"every_n_epochs": 10}, "; pictures at step 40, in 5 seconds"),
        ({"every_n_steps": 100}, {"every_n_steps": 120}, "; pictures at step 120, in 45 seconds"),
        ({}, {}, "about 94 seconds for 170 more steps (0.5 s a step)"),
    ],
)
def test_the_remaining_minutes_are_reported_once_without_validations(reported, validate, preview, line):
    [found] = reported(Cadence(**validate), Cadence(**preview), max_steps=200)
    assert line in found


def test_a_short_run_reports_nothing(reported):
    assert reported(Cadence(), max_steps=25) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3 seconds"), (119, "119 seconds"), (150, "2.5 minutes"), (34 * 60, "34 minutes"), (86400, "24 hours")],
)
def test_a_duration_has_its_unit(seconds, text):
    assert duration_estimate.duration(seconds) == text
