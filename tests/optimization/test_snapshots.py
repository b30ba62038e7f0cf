"""Snapshots stay few and evenly spread, and averages made from them are those of the stored run."""

import numpy as np
import pytest
import torch

from diffusion.config import upgrades
from diffusion.ground.errors import UserError
from diffusion.optimization import snapshots
from diffusion.optimization.averages import Power, coefficients
from tests.optimization.test_averages import power_weights

LEAST = 16
PROFILES = Power([0.1, 0.05], LEAST)


def sgd(n, size, seed=0):
    """Every iterate of SGD on a noisy quadratic with curvatures over four decades: (n, size)."""
    generator = np.random.default_rng(seed)
    weights, optimum = 3 * generator.standard_normal(size), generator.standard_normal(size)
    curvature, noise = np.geomspace(5e-5, 0.5, size), generator.standard_normal((n, size))
    path = np.empty((n, size))
    for i in range(n):
        weights = weights - curvature * (weights - optimum) + 0.05 * np.sqrt(curvature) * noise[i]
        path[i] = weights
    return path


def walk(n, size, seed=0):
    return np.cumsum(np.random.default_rng(seed).standard_normal((n, size)), axis=0)


def follow(path, folder):
    """Averages a path as the callback does, with snapshots; returns the averages in the end."""
    path = torch.from_numpy(path).float()
    averages = {name: {"w": torch.full_like(path[0], 9.0)} for name in PROFILES.names}
    folder.mkdir(exist_ok=True)
    for step, weights in enumerate(path, start=1):
        for average, decay in zip(averages.values(), PROFILES.decays(step), strict=True):
            average["w"].lerp_(weights, 1 - decay)
        if snapshots.due(step, LEAST):
            torch.save(snapshots.contents(step, averages), snapshots.file(folder, step))
            snapshots.thin(folder, step, LEAST)
    return averages


@pytest.fixture(scope="module", params=[sgd, walk])
def long_run(request, tmp_path_factory):
    """A long run with all of its iterates; it ends where the snapshots are fewest."""
    path, folder = request.param(16_384, 64), tmp_path_factory.mktemp("run") / "averages"
    return path, folder, follow(path, folder)


def test_snapshots_are_few_and_evenly_spread_however_long_the_run(tmp_path):
    for step in range(1, 3000):
        if snapshots.due(step, LEAST):
            snapshots.file(tmp_path, step).touch()
            snapshots.thin(tmp_path, step, LEAST)
            taken = sorted(int(file.stem) for file in tmp_path.iterdir())
            assert taken == list(range(taken[0], step + 1, taken[0]))
            assert len(taken) == step if step < LEAST else LEAST <= len(taken) < 2 * LEAST


def test_a_run_resumed_from_an_earlier_step_replaces_the_later_snapshots(tmp_path):
    for step in (64, 128, 512, 1024):
        snapshots.file(tmp_path, step).touch()
    snapshots.thin(tmp_path, 512, LEAST)
    assert {int(file.stem) for file in tmp_path.iterdir()} == {64, 128, 512}


@pytest.mark.parametrize(
    ("sigma_rel", "tolerance"),
    [(0.03, 2e-3), (0.04, 5e-4), (0.05, 1e-6), (0.08, 1e-4), (0.1, 1e-6), (0.15, 5e-4), (0.2, 4e-3), (0.25, 2e-2)],
)
def test_any_width_is_that_of_the_stored_run(long_run, sigma_rel, tolerance):
    path, folder, averages = long_run
    exact = power_weights(len(path), sigma_rel) @ path
    made = snapshots.reconstruct(folder, len(path), averages, sigma_rel)["w"].numpy()
    assert made.dtype == np.float32
    assert np.linalg.norm(made - exact) < tolerance * np.linalg.norm(exact)


@pytest.mark.parametrize("sigma_rel", [0.03, 0.04, 0.08, 0.15])
def test_it_is_far_closer_than_the_nearest_average_that_was_kept(long_run, sigma_rel):
    path, folder, averages = long_run
    exact = power_weights(len(path), sigma_rel) @ path
    made = snapshots.reconstruct(folder, len(path), averages, sigma_rel)["w"].numpy()
    nearest = min(np.linalg.norm(average["w"].numpy() - exact) for average in averages.values())
    assert np.linalg.norm(made - exact) < nearest / 20


@pytest.mark.parametrize("sigma_rel", [0.03, 0.2, 0.25])
def test_the_error_on_noise_is_the_predicted_one(tmp_path, sigma_rel):
    """Where iterates are independent, weights are missed by as much as the profile is: Algorithm 3's own error."""
    n = 3000
    path = np.random.default_rng(0).standard_normal((n, 4000))
    averages = follow(path, tmp_path)
    exact = power_weights(n, sigma_rel) @ path
    made = snapshots.reconstruct(tmp_path, n, averages, sigma_rel)["w"].numpy()
    steps = [*(int(file.stem) for file in tmp_path.iterdir() if int(file.stem) < n), n]
    _, missed = coefficients(np.repeat(steps, 2), [0.1, 0.05] * len(steps), n, sigma_rel)
    assert np.linalg.norm(made - exact) / np.linalg.norm(exact) == pytest.approx(missed, rel=0.1)


def test_the_middle_of_a_run_is_reconstructed_without_its_future(tmp_path):
    path = walk(6000, 16)
    follow(path, tmp_path)
    step = next(int(file.stem) for file in sorted(tmp_path.iterdir()) if int(file.stem) > 4000)
    then = torch.load(snapshots.file(tmp_path, step), weights_only=True)["averages"]
    made = snapshots.reconstruct(tmp_path, step, then, 0.08)["w"].numpy()
    exact = power_weights(step, 0.08) @ path[:step]
    assert np.linalg.norm(made - exact) < 1e-3 * np.linalg.norm(exact)


@pytest.mark.parametrize("sigma_rel", [0.01, 0.28])
def test_a_width_out_of_reach_is_refused_with_those_in_reach(long_run, sigma_rel):
    path, folder, averages = long_run
    with pytest.raises(UserError, match=r"15 snapshots before step 16384 .* widths from 0\.025 to 0\.255"):
        snapshots.reconstruct(folder, len(path), averages, sigma_rel)


def test_without_snapshots_only_what_is_there_is_given(tmp_path):
    averages = {name: {"w": torch.full((2,), value)} for name, value in zip(PROFILES.names, (1.0, 2.0), strict=True)}
    assert torch.allclose(snapshots.reconstruct(tmp_path / "none", 100, averages, 0.05)["w"], torch.full((2,), 2.0))
    with pytest.raises(UserError, match="0 snapshots before step 100"):
        snapshots.reconstruct(tmp_path / "none", 100, averages, 0.02)


def test_other_averages_have_no_width(tmp_path):
    with pytest.raises(UserError, match="a width needs a run trained with ema=power; there are decay"):
        snapshots.reconstruct(tmp_path, 100, {"decay": {"w": torch.ones(2)}}, 0.05)


def test_a_damaged_or_foreign_snapshot_is_named(tmp_path):
    averages = follow(walk(40, 4), tmp_path)
    file = snapshots.file(tmp_path, 38)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"{file.name}: not a readable snapshot"):
        snapshots.reconstruct(tmp_path, 40, averages, 0.08)
    file.write_bytes(whole)
    offset = whole.index(next(iter(torch.load(file, weights_only=True)["averages"].values()))["w"].numpy().tobytes())
    file.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
    with pytest.raises(UserError, match=f"{file.name}: damaged, .* remove it to use the others without it"):
        snapshots.reconstruct(tmp_path, 40, averages, 0.08)
    torch.save({"step": 38, "averages": {"power_0.2": {"w": torch.ones(4)}}}, file)
    with pytest.raises(UserError, match=f"{file.name}: holds the averages of another run"):
        snapshots.reconstruct(tmp_path, 40, averages, 0.08)


def test_a_snapshot_of_an_earlier_format_has_its_weights_renamed_and_a_later_one_is_refused(tmp_path, monkeypatch):
    """The first had no number; `tests/test_formats.py` reads one of them from a run of that time."""
    averages = {"power_0.1": {"new": torch.ones(2)}, "power_0.05": {"new": torch.ones(2)}}
    old = {name: {"old": weights["new"]} for name, weights in averages.items()}
    torch.save({"step": 4, "averages": old}, snapshots.file(tmp_path, 4))
    with pytest.raises(UserError, match="holds the averages of another run"):
        snapshots.reconstruct(tmp_path, 8, averages, 0.08)
    monkeypatch.setattr(upgrades, "_NAMES", (lambda name: name.replace("old", "new"),))
    assert torch.equal(snapshots.reconstruct(tmp_path, 8, averages, 0.08)["new"], torch.ones(2))
    torch.save({**snapshots.contents(4, averages), "format": 99}, snapshots.file(tmp_path, 4))
    with pytest.raises(UserError, match=r"000000004\.pt: format 99, but this version reads up to"):
        snapshots.reconstruct(tmp_path, 8, averages, 0.08)
