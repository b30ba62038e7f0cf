"""A random model, and the command that measures it."""

import json

import pytest

from diffusion.data.digits import Digits
from tests.helpers.commands import command
from tests.helpers.random_model import random_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def ckpt(folder):
    overrides = ["schedule.T=20", "prediction=v", "sampler=ddim", "sampler.steps=3", "dataset.path=null"]
    return random_model(folder / "model.ckpt", *overrides)


@pytest.fixture
def _cache(folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Calls the command; returns its rows."""

    def call(*given, output=tmp_path / "out"):
        done = command("evaluate", f"output={output}", *given, capsys=capsys)
        assert done.code == 0, done.err
        return [json.loads(line) for line in done.folder.read_text().splitlines()]

    return call


@pytest.fixture(scope="module")
def digits():
    return Digits(path=None, channels=1, size=8, batch_size=8)
