"""The digits, and a cache directory of each test."""

import pytest

from diffusion.data.digits import Digits


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "diffusion" / "features"


@pytest.fixture
def data():
    return Digits(path=None, channels=1, size=8, batch_size=8)
