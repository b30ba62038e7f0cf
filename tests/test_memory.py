"""Out of memory, by imitation: one line that names the key to lower, and all that was written before stays."""

import pytest
import torch

from diffusion.lit.lightning_module import LitDiffusion
from diffusion.networks.unet import UNet
from diffusion.training.callbacks.preview import Preview
from tests.helpers.commands import command, tiny
from tests.helpers.memory import CUDA

pytestmark = pytest.mark.filterwarnings("ignore")


def breaking(function, count, error):
    """`function`, but its call number `count` and all later ones raise `error`."""
    calls = []

    def broken(*args, **options):
        calls.append(1)
        if len(calls) >= count:
            raise error
        return function(*args, **options)

    return broken


def one_line(done):
    assert done.code == 2
    assert "Traceback" not in done.err
    [line] = [line for line in done.err.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture
def train(tmp_path, capsys):
    def run(*given):
        line = tiny("trainer.max_steps=4", "optimizer.warmup_steps=1", f"run.dir={tmp_path / 'run'}", *given)
        return command("train", *line, capsys=capsys)

    return run


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(CUDA), MemoryError()], ids=["cuda", "cpu"])
def test_in_a_training_step_that_before_it_is_saved(error, train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(LitDiffusion, "training_step", breaking(LitDiffusion.training_step, 3, error))
        line = one_line(train())
    wanted = " (20.00 GiB more were requested)" * (str(error) != "")
    assert line.startswith(f"error: out of memory{wanted}: lower dataset.batch_size and raise trainer.accumulate")
    assert (tmp_path / "run" / "checkpoints" / "step_0000002.ckpt").exists()
    resumed = train("resume=auto")
    assert (resumed.code, "at step 2" in resumed.out) == (0, True)


def test_in_the_first_step_nothing_is_left(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(LitDiffusion, "training_step", breaking(LitDiffusion.training_step, 1, MemoryError()))
        one_line(train())
    assert list(tmp_path.iterdir()) == []
    assert train("trainer.max_steps=1").code == 0


def test_in_a_preview_the_steps_are_kept(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Preview, "draw", breaking(Preview.draw, 1, torch.OutOfMemoryError(CUDA)))
        assert "if it was a preview, lower callbacks.preview.n" in one_line(train("validate.every_n_steps=2"))
    assert "at step 2" in train("resume=auto").out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from diffusion.commands import cli

    folder = tmp_path_factory.mktemp("memory") / "run"
    assert cli.main("train", tiny("trainer.max_steps=1", "callbacks.preview.n=0", f"run.dir={folder}")) == 0
    return folder


def test_in_sampling_what_was_drawn_stays(run, tmp_path, capsys, monkeypatch):
    line = [f"ckpt={run}", "n=6", "batch_size=2", "sampler=ddim", "sampler.steps=2", f"output={tmp_path / 'out'}"]
    with monkeypatch.context() as patch:
        patch.setattr(UNet, "forward", breaking(UNet.forward, 4, torch.OutOfMemoryError(CUDA)))  # of the second batch
        assert one_line(command("sample", *line, capsys=capsys)).endswith("were requested): lower batch_size")
    drawn = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("00000*.png")}
    assert len(drawn) == 2
    assert command("sample", *line, capsys=capsys).code == 0
    assert len([*tmp_path.rglob("00000*.png")]) == 6
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in drawn.items())


def test_in_an_evaluation(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(UNet, "forward", breaking(UNet.forward, 1, MemoryError()))
    done = command("evaluate", f"ckpt={run}", "metric.bpd.n=2", f"output={tmp_path / 'out'}", capsys=capsys)
    assert one_line(done) == "error: out of memory: lower batch_size"
    assert not [*tmp_path.rglob("*.json*"), *tmp_path.rglob("*.png")]
