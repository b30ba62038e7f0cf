import pytest

from tests.helpers.commands import command, tiny


@pytest.fixture
def train(capsys, tmp_path):
    def run(*overrides):
        return command("train", *overrides, capsys=capsys)

    return run


@pytest.fixture
def start(train, tmp_path):
    """Trains the run `name` in tmp_path as far as the words say."""

    def run(*overrides, name="a"):
        return train(*tiny(f"run.root={tmp_path}", f"run.name={name}", *overrides))

    return run


@pytest.fixture
def one_step(start):
    """The folder of a run of one step."""
    return start("trainer.max_steps=1", "trainer.max_minutes=60", "callbacks.preview.n=0", name="one").folder
