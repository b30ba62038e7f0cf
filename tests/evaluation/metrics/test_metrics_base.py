"""A metric that draws samples is handed the section of sampling, and its rows tell of it."""

import json

import pytest
import torch
from matplotlib.figure import Figure

from diffusion.clipping import Unclipped
from diffusion.commands import evaluate
from diffusion.config import registry
from diffusion.evaluation.metrics.base import ModelMetric, Score
from diffusion.ground.errors import UserError
from diffusion.guidance import ClassifierFree
from diffusion.runs import checkpoint
from diffusion.runs import compose as configs
from diffusion.samplers.heun import Heun
from tests.helpers.commands import command
from tests.helpers.random_model import random_model

pytestmark = pytest.mark.filterwarnings("ignore")


class Mean(ModelMetric):
    """The mean of all samples."""

    name = "mean"
    samples = 6

    def check(self, model, data):
        pass

    def __call__(self, model, data, *, seed, batch_size, sampling):
        drawn = sampling.batches(model, torch.arange(sampling.n), batch_size=batch_size, progress=False)
        x_0 = torch.cat([states[-1] for _, states in drawn])
        return Score(x_0.mean().item(), {"n": len(x_0)}, {}, "mean", Figure())


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    overrides = ["schedule.T=20", "prediction=v", "sampler=ddim", "sampler.steps=4", "dataset.path=null"]
    path = tmp_path_factory.mktemp("model") / "model.ckpt"
    return random_model(path, *overrides, classes=[str(digit) for digit in range(10)])


@pytest.fixture
def mean(ckpt, tmp_path, monkeypatch):
    """Evaluates by `Mean`; returns the row."""
    registered = {**registry.registered(), f"{__name__}.Mean": "metric"}
    monkeypatch.setattr(registry, "registered", lambda: registered)

    def run(*overrides):
        config = configs.compose("evaluate", [f"ckpt={ckpt}", f"output={tmp_path}", *overrides])
        config.metric = {"mean": {"_target_": f"{__name__}.Mean"}}
        return json.loads(evaluate.run(config).read_text().splitlines()[-1])

    return run


def test_it_samples_as_the_section_specifies(mean, ckpt):
    overrides = [
        "y=3",
        "guidance.scale=2",
        "sampler=heun",
        "sampler.steps=3",
        "clipping=none",
        "seed=5",
        "batch_size=4",
    ]
    row = mean(*overrides)
    model = checkpoint.load(ckpt)

    parts = {"sampler": Heun(3, "karras"), "guidance": ClassifierFree(2.0), "clip": Unclipped()}
    drawn = model.sample(6, 5, y=3, progress=False, **parts)
    assert row["value"] == pytest.approx(drawn.mean().item(), rel=1e-4)
    assert row["n"] == 6
    stored = row["protocol"]["sampling"]
    assert (stored["n"], stored["seed"], stored["y"], stored["sampler"]["class"]) == (6, 5, [3], "Heun")
    assert (stored["sampler"]["steps"], stored["guidance"]["scale"]) == (3, 2)
    assert mean("n=3")["n"] == 3


def test_what_has_no_effect_is_refused(mean):
    with pytest.raises(UserError, match=r"guidance\.scale has no effect: guidance needs a class"):
        mean("guidance.scale=2")


@pytest.mark.parametrize(
    "word", ["n=3", "y=1", "condition.label=1", "sampler=ddim", "sampler.steps=3", "task=generate"]
)
def test_a_metric_that_draws_none_takes_none_of_it(word, ckpt, tmp_path, capsys):
    done = command("evaluate", f"ckpt={ckpt}", f"output={tmp_path / 'out'}", word, capsys=capsys)
    assert done.code == 2
    assert f"{word.partition('=')[0]} has no effect: metric=bpd draws no samples" in done.err
