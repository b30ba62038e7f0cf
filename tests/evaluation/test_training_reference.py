"""What is measured once for a data set is read from a file ever after; other settings are another file."""

from dataclasses import replace

import pytest
import torch

from diffusion import schedule
from diffusion.conditioners.label import Label
from diffusion.evaluation import tensor_cache as cache
from diffusion.evaluation import training_reference as module
from diffusion.evaluation.training_reference import Settings, reference, trained_on
from tests.helpers.lit_models import digits, small_model

FEW = Settings(draws=8, n=4)


def measured(folder, model=None, data=None, settings=FEW):
    return reference(model or small_model(), data or digits(), settings, folder)


def equal(one, other):
    return torch.equal(one.floor.estimates, other.floor.estimates) and all(
        torch.equal(a, b) for a, b in zip(vars(one.means).values(), vars(other.means).values(), strict=True)
    )


def test_the_second_run_reads_the_file(tmp_path, monkeypatch):
    first = measured(tmp_path)
    [file] = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_measured", None)
        assert equal(measured(tmp_path), first)
    file.write_bytes(file.read_bytes()[:100])
    assert equal(measured(tmp_path), first)
    assert equal(measured(tmp_path), first)


def test_by_default_it_is_kept_where_decoded_images_are(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured(None)
    assert len([*tmp_path.glob("diffusion/floor-*.safetensors")]) == 1


def test_without_a_cache_directory_there_is_still_a_floor(tmp_path, caplog):
    (tmp_path / "file").touch()
    assert measured(tmp_path / "file" / "folder").floor.value.max() > 0
    assert "was not written" in caplog.text


def test_the_newest_files_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_KEPT", 2)
    for n in (1, 2, 3):
        measured(tmp_path, settings=replace(FEW, n=n))
    assert len([*tmp_path.iterdir()]) == 2


def test_all_that_it_depends_on_is_in_the_name_of_the_file(tmp_path):
    labelled, flipped, noisier = small_model(), digits(), small_model()
    labelled.conditioning = {"label": Label(classes=[str(k) for k in range(10)], drop=0.1)}
    flipped.flip = True
    noisier.denoiser.schedule = schedule.cosine()
    found = [
        measured(tmp_path),
        measured(tmp_path, model=labelled),
        measured(tmp_path, model=noisier),
        measured(tmp_path, data=flipped),
        measured(tmp_path, settings=replace(FEW, draws=9)),
    ]
    assert len([*tmp_path.iterdir()]) == len({each.floor.value.sum().item() for each in found}) == 5
    assert len(trained_on(flipped, small_model())) == 2 * len(digits().split("train")[0])
    assert found[1].condition.tensors["label"].shape == (4,)
    assert found[1].floor.value.sum() < found[0].floor.value.sum()  # given its class an image is less uncertain


def test_a_part_of_the_set_has_a_floor_alone(tmp_path):
    part = measured(tmp_path, settings=replace(FEW, draws=32, rows=100))
    assert part.means is None
    assert part.floor.estimates.shape == (16, 20)
    whole = measured(tmp_path, settings=replace(FEW, rows=10_000))
    assert whole.means is not None


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_what_takes_long_is_announced(tmp_path, monkeypatch, capsys, seconds):
    monkeypatch.setattr(module, "_seconds", lambda *_: seconds)
    measured(tmp_path)
    assert ("about 5 s" in capsys.readouterr().out) == (seconds > 1)
