"""trainer.precision is what the network computes in: the process, x_t, losses and averages never follow it down."""

import pytest
import torch

from tests.helpers.commands import command, tiny

pytestmark = pytest.mark.filterwarnings("ignore")
TRAINED = {"bf16-true": torch.bfloat16, "64-true": torch.float64, "bf16-mixed": torch.float32}
LEARNS_ALL = ("loss=hybrid", "weighting=min_snr", "self_conditioning=true", "timesteps=loss_second_moment")


def contents(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("precision", TRAINED)
def test_a_run_in_it_is_validated_previewed_resumed_and_sampled_from(precision, tmp_path, capsys):
    def train(name, *given):
        line = (*LEARNS_ALL, "schedule.T=20", "optimizer.warmup_steps=1", f"trainer.precision={precision}", *given)
        done = command("train", *tiny(*line, f"run.dir={tmp_path / name}"), capsys=capsys)
        assert done.code == 0, done.err
        return contents(done.folder)

    whole = train("whole", "trainer.max_steps=4")
    train("half", "trainer.max_steps=2")
    half = train("half", "trainer.max_steps=4", "resume=auto")
    for key, weight in whole["state_dict"].items():
        assert weight.dtype == TRAINED[precision]
        assert weight.isfinite().all()
        assert torch.equal(weight, half["state_dict"][key])
        assert whole["averages"]["decay"][key].dtype == torch.float32
        assert torch.equal(whole["averages"]["decay"][key], half["averages"]["decay"][key])
    assert len(list((tmp_path / "whole" / "samples").glob("epoch_*.png"))) == 1
    for weights in "ema", "raw":
        line = [f"ckpt={tmp_path / 'whole'}", f"weights={weights}", f"output={tmp_path / weights}", "n=2"]
        assert command("sample", *line, "sampler=ddim", "sampler.steps=2", capsys=capsys).code == 0
    line = [f"ckpt={tmp_path / 'whole'}", "metric.bpd.n=2", "metric.bpd.steps=2"]
    assert command("evaluate", *line, capsys=capsys).code == 0


def test_precision_unsupported_on_a_cpu_is_rejected_before_a_folder_exists(tmp_path, capsys):
    line = tiny("trainer.max_steps=1", "trainer.precision=16-mixed", f"run.dir={tmp_path / 'run'}")
    done = command("train", *line, capsys=capsys)
    assert done.code == 2
    assert done.err == "error: trainer.precision=16-mixed: float16 needs a GPU; on a CPU use bf16-mixed or 32-true\n"
    assert list(tmp_path.iterdir()) == []
