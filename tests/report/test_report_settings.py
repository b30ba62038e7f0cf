"""What a report shows of the config."""

from diffusion.report import settings
from diffusion.report.run import runs


def test_the_config_is_compared_with_the_defaults(run):
    [found] = runs([run])
    changed = settings.changed(found)
    assert changed["dataset"] == ("MNIST", "Digits")
    assert changed["trainer.max_steps"] == ("100000", "300")
    assert not {key for key in changed if key.startswith(("run.", "logger", "callbacks"))}
