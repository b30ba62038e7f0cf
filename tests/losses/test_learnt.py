"""A weighting that is trained: what it converges to, and that it is stored, resumed and left out like the rest."""

import csv

import pytest
import torch

import diffusion
from diffusion import schedule
from diffusion.ground.errors import UserError
from diffusion.losses.learnt import Learnt
from diffusion.losses.objective import L2, Objective
from diffusion.optimization.optimizers import AdamW
from tests.helpers.commands import command, tiny

KEYS = {f"objective.weighting.{name}" for name in ("weight", "frequencies", "phases")}

pytestmark = pytest.mark.filterwarnings("ignore")


def test_it_converges_to_the_log_of_the_loss():
    """Whose expectation at each t is fixed here, and which scatters around it."""
    made, weighting = schedule.cosine(1000), Learnt()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(weighting.parameters(), lr=1e-2)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2000)

    def expected(t):
        return 0.5 * (-3 * t / 1000).exp() + 0.01

    for _ in range(2000):
        t = torch.randint(1, 1001, (256,), generator=generator).double()
        loss = expected(t) * (0.5 + torch.rand(256, generator=generator))
        optimizer.zero_grad()
        weighting.of_loss(loss, made, t).mean().backward()
        optimizer.step()
        decay.step()
    t = torch.arange(20, 981, 20).double()
    torch.testing.assert_close(weighting.log_loss(made, t).double(), expected(t).log(), rtol=0, atol=0.1)


def test_it_begins_as_one_of_the_v_error_and_is_finite_where_there_is_no_signal():
    weighting, loss = Learnt(), torch.tensor([0.3, 0.5])
    made = schedule.cosine(1000).with_zero_terminal_snr()
    assert torch.equal(weighting.of_loss(loss, made, torch.tensor([1.0, 1000.0])), loss)
    weighting.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    assert weighting.of_loss(loss, made, torch.tensor([1.0, 1000.0])).isfinite().all()
    assert (weighting(made, torch.tensor([1.0, 500.0])) == 1).all()
    with pytest.raises(UserError, match=r"weighting\.channels=0"):
        Learnt(channels=0)


def test_it_is_a_part_of_the_objective_and_is_not_decayed():
    objective = L2(Learnt())
    assert isinstance(objective, Objective)
    assert {f"objective.{name}" for name in objective.state_dict()} == KEYS
    one, two = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimizer, _ = AdamW(lr=0.1, weight_decay=0.5, warmup_steps=0).build([one], [two])
    one.grad, two.grad = torch.zeros(1), torch.zeros(1)
    optimizer.step()
    assert one.item() < 1
    assert two.item() == 1
    assert len(AdamW().build([one])[0].param_groups) == 1, "of old checkpoints"
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0]


TRAINED = tiny("weighting=learnt", "trainer.log_every_n_steps=1", "ema=power", "optimizer.weight_decay=0.1",
    "optimizer.warmup_steps=2")  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory, module_capsys):
    """A run of 12 steps, one that was stopped after 5, and the words of both."""
    root = tmp_path_factory.mktemp("learnt")
    for name, steps in ("whole", 12), ("halves", 5), ("halves", 12):
        line = [*TRAINED, f"run.dir={root / name}", f"trainer.max_steps={steps}", "resume=auto"]
        done = command("train", *line, capsys=module_capsys)
        assert done.code == 0, done.err
    return root


@pytest.fixture(scope="module")
def module_capsys():
    class Nothing:
        def readouterr(self):
            return "", ""

    return Nothing()


def last(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def test_it_is_trained_stored_and_not_averaged(runs):
    saved = last(runs / "whole")
    assert saved["state_dict"].keys() > KEYS
    assert saved["state_dict"]["objective.weighting.weight"].abs().max() > 0
    assert list(saved["optimizer_states"][0]["state"])[-1] == "objective.weighting.weight"
    decays = [group["weight_decay"] for group in saved["optimizer_states"][0]["param_groups"]]
    assert decays == [0.1, 0.0]
    for average in saved["averages"].values():
        assert all(name.startswith("denoiser.") for name in average)
    ema = saved["ema_state_dict"]
    assert torch.equal(ema["objective.weighting.weight"], saved["state_dict"]["objective.weighting.weight"])


def test_a_resumed_run_is_the_whole_one_bit_for_bit(runs):
    whole, halves = last(runs / "whole"), last(runs / "halves")
    for part in "state_dict", "ema_state_dict":
        assert all(torch.equal(value, halves[part][name]) for name, value in whole[part].items())
    one, other = (each["optimizer_states"][0] for each in (whole, halves))
    assert one["param_groups"] == other["param_groups"]
    for name, state in one["state"].items():
        assert torch.equal(state["exp_avg_sq"], other["state"][name]["exp_avg_sq"])


def test_training_with_it_is_stable(tmp_path, capsys):
    """The error of eps falls as without it, and u follows the log of the loss at each t."""
    rate = ["optimizer.lr=3e-3", "optimizer.warmup_steps=20"]
    line = tiny("weighting=learnt", "trainer.max_steps=400", *rate, "schedule=cosine", "callbacks.preview.n=0")
    done = command("train", *line, f"run.dir={tmp_path / 'run'}", capsys=capsys)
    assert done.code == 0, done.err
    with open(done.folder / "metrics.csv", newline="") as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert losses[-1] < 0.35 * losses[0]
    model, state = diffusion.load(done.folder), last(done.folder)["state_dict"]
    model.load_state_dict(state)
    t = torch.tensor([20.0, 200, 500, 800, 950])
    u = model.objective.weighting.log_loss(model.denoiser.schedule, t).tolist()
    x_0 = diffusion.ground.images.from_uint8(
        diffusion.runs.build.instantiate(model.config["dataset"], seed=0).split("train")[0]
    )
    generator = torch.Generator().manual_seed(0)
    for at, message in zip(t, u, strict=True):
        eps = torch.randn(x_0.shape, generator=generator)
        noised = diffusion.process.Noised.of(model.denoiser.schedule, x_0, at.expand(len(x_0)), eps)
        model.objective.weighting.weight.data.zero_()
        with torch.no_grad():
            measured = model.objective(model.denoiser, noised).mean().log()
        assert message == pytest.approx(measured.item(), abs=0.7), at


def test_it_samples_converts_and_evaluates(runs, tmp_path, capsys):
    common = f"ckpt={runs / 'whole'}"
    for line in (
        ["sample", common, "n=2", "sampler=ddim", "sampler.steps=2", f"output={tmp_path / 'samples'}"],
        ["sample", common, "n=2", "sampler=ddim", "sampler.steps=2", "weights=0.1", f"output={tmp_path / 'width'}"],
        ["evaluate", common, "metric.bpd.n=4", "metric.bpd.steps=2", f"output={tmp_path / 'numbers'}"],
        ["convert", common, "to=safetensors", f"output={tmp_path / 'x.safetensors'}"],
        ["convert", f"from={tmp_path / 'x.safetensors'}", f"output={tmp_path / 'x.ckpt'}"],
        ["sample", f"ckpt={tmp_path / 'x.ckpt'}", "n=2", "sampler=ddim", "sampler.steps=2", f"output={tmp_path / 'x'}"],
    ):
        done = command(*line, capsys=capsys)
        assert done.code == 0, done.err
    one, other = (sorted((tmp_path / name / "images").glob("*.png")) for name in ("samples", "x"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


@pytest.mark.parametrize(("before", "now"), [("learnt", "simple"), ("simple", "learnt")])
def test_its_weights_begin_a_run_of_another_weighting_which_cannot_go_on(runs, tmp_path, capsys, before, now):
    if before == "simple":
        line = tiny("trainer.max_steps=2", f"run.dir={tmp_path / 'simple'}", "callbacks.preview.n=0")
        assert command("train", *line, capsys=capsys).code == 0
    source = runs / "whole" if before == "learnt" else tmp_path / "simple"
    line = tiny(f"weighting={now}", f"resume={source}", "trainer.max_steps=20", "callbacks.preview.n=0")
    ema = ["ema=power"] * (before == "learnt")
    refused = command("train", *line, *ema, f"run.dir={tmp_path / 'refused'}", capsys=capsys)
    assert refused.code == 2
    assert "another loss or weighting" in refused.err
    assert "resume_mode=weights" in refused.err
    assert not (tmp_path / "refused").exists()
    line = tiny(*line, "resume_mode=weights", "trainer.max_steps=2", f"run.dir={tmp_path / 'run'}")
    assert command("train", *line, capsys=capsys).code == 0
