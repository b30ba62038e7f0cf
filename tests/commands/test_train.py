"""`train.py`, run as a user runs it."""

import csv
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.ground import random
from diffusion.runs import build, checkpoint
from tests.helpers.offline_wandb import read_offline_runs
from tests.helpers.processes import ROOT, SMALL, command, interrupt, succeed

DATA = ROOT.parent / "shared" / "data"


def test_training_opens_without_a_page_of_warnings(run):
    _, done = run
    assert "Warning" not in done.stderr + done.stdout
    assert len([line for line in done.stderr.splitlines() if "step/s" not in line]) <= 3


def test_the_run_folder_has_everything(run):
    folder, _ = run
    assert (folder / "config.yaml").exists()
    saved = {file.name for file in (folder / "checkpoints").iterdir()}
    assert saved == {"last.ckpt", "best.ckpt", "step_0000011.ckpt", "step_0000022.ckpt"}
    assert len(list((folder / "samples").glob("epoch_*.png"))) == 2
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert len(losses) == 2 * 11
    for band in range(1, 5):
        assert len([row for row in rows if row[f"val/loss_t{band}of4"]]) == 2


def test_wandb_holds_a_grid_per_epoch_the_loss_and_the_config(run):
    folder, done = run
    [offline] = read_offline_runs(folder)
    pictures = offline.images("preview")
    on_disk = [np.asarray(Image.open(file)) for file in sorted((folder / "samples").glob("epoch_*.png"))]
    assert len(pictures) == 2
    assert all(np.array_equal(logged, written) for logged, written in zip(pictures, on_disk, strict=True))
    assert len(offline.values("train/loss")) == 22
    assert len(offline.values("val/loss")) == 2
    assert offline.config["dataset"]["name"] == "digits"
    assert f"wandb sync {folder}" in done.stdout + done.stderr


def test_wandb_has_every_image_of_the_run_folder(run):
    folder, _ = run
    [offline] = read_offline_runs(folder)
    for name, files in {
        "schedule": ["schedule.png"],
        "data": ["samples/data.png"],
        "val/loss_against_t": sorted(folder.glob("samples/loss_*.png")),
        "preview": sorted(folder.glob("samples/epoch_*.png")),
        "preview/x_0": sorted(folder.glob("samples/x_0_*.png")),
        "preview/strip": sorted(folder.glob("samples/strip_*.png")),
        "preview/states": sorted(folder.glob("samples/states_*.gif")),
    }.items():
        assert len(files) == (1 if name in ("schedule", "data") else 2)
        assert [file.read_bytes() for file in offline.files(name)] == [(folder / file).read_bytes() for file in files]
    assert len(list((folder / "samples").iterdir())) == 1 + 5 * 2


def test_resume_auto_continues_and_reports_it(run, tmp_path):
    overrides = [*SMALL, "logger=none", f"run.root={tmp_path}", "run.name=a", "resume=auto"]
    first, done = succeed("train.py", *overrides, "trainer.max_steps=5")
    assert "resuming" not in done.stdout
    again, done = succeed("train.py", *overrides, "trainer.max_steps=8", "optimizer.lr=1e-5")
    assert first == again == tmp_path / "digits" / "a"
    assert "resuming" in done.stdout
    assert "step 5" in done.stdout
    assert "learning rate: 0.0002 -> 1e-05" in done.stdout + done.stderr
    assert torch.load(first / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8
    _, done = succeed("train.py", *overrides, "trainer.max_steps=8")
    assert "nothing left to train: max_steps=8 reached" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_its_step_and_ends_as_if_it_had_not_been_stopped(number, tmp_path):
    # a warm-up that is a share of the run would depend on where the run was to end
    overrides = [*SMALL[:-1], "logger=none", "validate.every_n_epochs=3", "optimizer.warmup_share=null"]
    stopped = tmp_path / "stopped"
    output, code = interrupt(number, *overrides, f"run.dir={stopped}")
    assert code == 130
    step = torch.load(stopped / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert f"stopped at step {step}" in output
    last = f"trainer.max_steps={step + 7}"
    succeed("train.py", *overrides, last, f"run.dir={stopped}", "resume=auto")
    whole, _ = succeed("train.py", *overrides, last, f"run.dir={tmp_path / 'whole'}")
    ends = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (stopped, whole)]
    for weights in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(value, ends[1][weights][key]) for key, value in ends[0][weights].items())


MISTAKES = [
    (["dataset=mnist", "network=unet_ddpm"], "28 does not divide by 8"),
    (["resume=auto"], "resume=auto: which run?"),
    (["resume=runs/nothing"], "no such file or run folder"),
    (["dataset=image_folder", "network=unet_small", "dataset.path=nowhere"], "nowhere"),
    (["dataset=mnist", "network=unet_small", "dataset.path=/dev/null/data"], "/dev/null/data"),
    (["run.dir=/dev/null/run"], "/dev/null/run: cannot be written"),
    (["schedule.T=0"], "schedule.T=0"),
    (["schedule.zero_terminal_snr=true", "prediction=v"], "use weighting=snr"),
    (["ema.decay=1"], "ema.decay=1"),
    (["callbacks.preview.sampler.steps=2000"], "sampler.steps=2000"),
    (["strategy=gpu"], "gpu"),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_mistake_is_one_line_and_leaves_no_run_folder(overrides, message, tmp_path):
    base = ["dataset=digits", "network=unet_tiny"] if not any(word.startswith("dataset=") for word in overrides) else []
    done = command("train.py", *base, *overrides, "logger=none", f"run.root={tmp_path / 'runs'}")
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "MNIST").is_dir(), reason="needs MNIST in ../shared/data")
def test_mnist_trains_and_samples(tmp_path):
    overrides = [
        f"dataset.path={DATA}",
        "trainer.max_steps=3",
        "logger=csv",
        f"run.dir={tmp_path / 'run'}",
        "callbacks.preview.n=2",
    ]
    overrides += ["callbacks.preview.sampler.steps=2", "dataset.val_images=64", "dataset.batch_size=16"]
    folder, _ = succeed("train.py", *overrides)
    made, _ = succeed("sample.py", f"ckpt={folder}", "n=2", "sampler=ddim", "sampler.steps=2")
    assert Image.open(made / "images" / "000000.png").size == (28, 28)


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    """ddp_cpu sees the same global batches, t and noise as one process: the weights agree to rounding."""
    overrides = [*SMALL, "logger=none", "trainer.max_steps=6", "optimizer.warmup_steps=0"]
    one, _ = succeed("train.py", *overrides, f"run.dir={tmp_path / 'one'}")
    two, done = succeed("train.py", *overrides, f"run.dir={tmp_path / 'two'}", "strategy=ddp_cpu")
    assert "site-packages" not in done.stderr  # no warning of Lightning's
    weights = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (one, two)]
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=2e-3, atol=2e-4)
    start = build.model(checkpoint.read(one / "checkpoints" / "last.ckpt")["config"]).state_dict()
    moved = max((value - start[key]).abs().max().item() for key, value in weights[0].items())
    assert moved > 5e-4  # the tolerance is far below what was learnt


def test_ranks_draw_different_noise_and_together_that_of_one_process():
    whole = random.normal(0, "train/eps", torch.arange(8), (1, 2, 2))
    first, second = (random.normal(0, "train/eps", index, (1, 2, 2)) for index in torch.arange(8).chunk(2))
    assert torch.equal(whole, torch.cat([first, second]))
    assert not torch.equal(first, second)
