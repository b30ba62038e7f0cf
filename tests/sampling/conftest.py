"""A model of four classes, and the commands that draw its samples."""

import pytest

from tests.helpers.commands import command
from tests.helpers.random_model import random_model

CLASSES = ["zero", "one", "two", "three"]


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    overrides = ["schedule.T=20", "prediction=v", "sampler=ddim", "sampler.steps=4"]
    return random_model(tmp_path_factory.mktemp("model") / "model.ckpt", *overrides, classes=CLASSES)


@pytest.fixture
def sample(ckpt, tmp_path, capsys):
    def run(*given):
        name, own = ("sample", ["sampler=ddim", "sampler.steps=4"])
        if given[0] == "compare":
            name, own, given = "compare", ["steps=[2]", "samplers=[ddim]"], given[1:]
        done = command(name, f"ckpt={ckpt}", *own, *given, capsys=capsys)
        assert done.code == 0, done.err
        return done

    return lambda *given: run(*given, f"output={tmp_path / 'out'}")
