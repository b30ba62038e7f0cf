"""What the benchmarks compare is the same, and what they compute is right; how fast it is, they say themselves."""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from diffusion.runs import build
from diffusion.runs.compose import compose

TOP = Path(__file__).resolve().parent.parent


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a file of benchmarks/ as the command does."""
    monkeypatch.syspath_prepend(TOP / "benchmarks")
    known = set(sys.modules)
    yield __import__
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(TOP / "benchmarks")):
            del sys.modules[name]


def test_the_networks_compared_give_the_same(benchmark):
    pytest.importorskip("diffusers")
    networks = benchmark("networks")
    ours, theirs = networks.networks()
    x, t = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 999])
    torch.testing.assert_close(networks.output(ours, x, t), networks.output(theirs, x, t), rtol=0, atol=1e-5)


def test_the_bare_loop_learns_and_averages(benchmark):
    loop = benchmark("loop")
    overrides = ["experiment=digits", "network.widths=[8,8]", "network.norm_groups=4", "ema.decay=0.5"]
    config = OmegaConf.to_container(compose("train", [*overrides, "optimizer.warmup_steps=1"]), resolve=True)
    model = build.trainable(config)
    start = [weight.detach().clone() for weight in model.parameters()]
    pictures = torch.full((128, 1, 8, 8), 255, dtype=torch.uint8)
    averages = [
        [weight.clone() for weight in average] for average in itertools.islice(loop.train(model, pictures, config), 2)
    ]
    first, second = (max((a - b).abs().max() for a, b in zip(weights, start, strict=True)) for weights in averages)
    assert 0 < first < second
    weights = [weight.detach() for weight in model.parameters()]
    for before, average, weight in zip(*averages, weights, strict=True):  # d = min(0.5, 3 / 12)
        torch.testing.assert_close(average, before.lerp(weight, 0.75))


def test_a_row_is_ours_over_theirs(benchmark):
    measure = benchmark("measure")
    ours, theirs = itertools.cycle([1.0, 2.0, 4.0]), itertools.cycle([2.0, 2.0, 2.0])
    faster = measure.alternate("speed", lambda: next(ours), lambda: next(theirs), "images/s", rounds=3)
    assert (faster.ours, faster.peer, faster.ratio, faster.ratios) == (2.0, 2.0, 1.0, [0.5, 1.0, 2.0])
    shorter = measure.alternate("time", lambda: next(ours), lambda: next(theirs), "s", rounds=3, less=True)
    assert shorter.ratios == [0.5, 1.0, 2.0]
    assert "| time | 2 s | 2 s | 1.000 | 0.500 to 2.000 |" in measure.table([faster, shorter])


def test_every_arm_of_the_search_composes_and_costs_the_same(benchmark):
    recipes = benchmark("recipes")
    for arm in recipes.ARMS:
        overrides = recipes.overrides(arm, 90_000)
        assert compose("train", [*overrides, "dataset=mnist"]).trainer.max_steps > 0
    steps = {arm: recipes.overrides(arm, 90_000)[-2] for arm in ("former", "muon", "muon-1-layer")}
    assert steps == {
        "former": "trainer.max_steps=1406",
        "muon": "trainer.max_steps=1339",
        "muon-1-layer": "trainer.max_steps=1913",
    }
