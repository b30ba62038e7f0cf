"""Which features are chosen where none are named."""

import pytest

from diffusion.data.digits import Digits
from diffusion.evaluation.features import inception
from diffusion.evaluation.features.auto import Auto
from diffusion.ground.errors import UserError


def test_auto_takes_the_best_that_is_there(data, cache, capsys, monkeypatch):
    Auto().extractor(data)
    assert capsys.readouterr().out.startswith("features=auto: classifier\n")
    monkeypatch.setattr(Digits, "classes", None)
    Auto().extractor(data)
    assert capsys.readouterr().out == "features=auto: pixels\n"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / inception.PUBLISHED.name).write_bytes(b"not the weights")
    with pytest.raises(UserError, match="is damaged or another file: its SHA-256 is"):
        Auto().extractor(data)
    assert capsys.readouterr().out == "features=auto: inception\n"
