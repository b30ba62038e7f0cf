"""The commands, run as a user runs them."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffusion
from diffusion.commands import cli
from diffusion.data.digits import Digits
from diffusion.ground import random
from diffusion.runs import build, checkpoint
from tests.helpers.offline_wandb import read_offline_runs

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT.parent / "shared" / "data"
SMALL = [
    "dataset=digits",
    "network=unet_tiny",
    "network.widths=[16,32]",
    "callbacks.preview.n=4",
    "callbacks.preview.sampler.steps=3",
]
SMALL += ["validate.every_n_epochs=1"]


def command(script, *overrides, cwd=ROOT, **environment):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **environment}
    environment.pop("WANDB_API_KEY", None)
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, overrides)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def interrupt(number, *overrides):
    """Starts a training, sends it a signal once it trains, and returns what it printed and its exit code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *overrides],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while b"step/s" not in started.stderr.readline():
        assert started.poll() is None
    started.send_signal(number)
    output, _ = started.communicate(timeout=60)
    return output.decode(), started.returncode


def succeed(script, *overrides, **options):
    done = command(script, *overrides, **options)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1]), done


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs of digits, logged to W&B offline."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    made, done = succeed("train.py", *SMALL, "trainer.max_epochs=2", "trainer.log_every_n_steps=1", f"run.dir={folder}")
    assert made == folder
    return folder, done


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


def test_sample_needs_nothing_but_the_checkpoint(run, tmp_path):
    folder, _ = run
    lonely = tmp_path / "lonely=1, ü.ckpt"
    lonely.write_bytes((folder / "checkpoints" / "last.ckpt").read_bytes())
    output = tmp_path / "out"
    made, _ = succeed(
        "sample.py", f"ckpt={lonely}", "n=5", "sampler.steps=4", f"output={output}", "keep=3", "npz=true", cwd=tmp_path
    )
    assert made == output
    assert {file.name for file in (output / "images").iterdir()} == {f"{i:06d}.png" for i in range(5)}
    beside = {"images", "grid.png", "strip.png", "states.gif", "samples.json", "samples.npz"}
    assert {file.name for file in output.iterdir()} == beside
    stored = np.load(output / "samples.npz")["arr_0"]
    assert stored.shape == (5, 8, 8, 1)
    assert stored.dtype == np.uint8
    assert np.array_equal(stored[2, ..., 0], np.asarray(Image.open(output / "images" / "000002.png")))
    description = json.loads((output / "samples.json").read_text())
    assert description["seed"] == 0
    assert description["sampler"]["steps"] == 4
    assert description["seconds"] > 0
    with Image.open(output / "states.gif") as gif:
        assert gif.n_frames == 3


def test_the_same_seed_gives_the_same_images_in_any_batch_size_and_in_python(run, tmp_path):
    folder, _ = run
    overrides = [f"ckpt={folder}", "n=5", "seed=3", "sampler=ddim", "sampler.steps=5", "npz=true"]
    one, _ = succeed("sample.py", *overrides, f"output={tmp_path / 'one'}", "batch_size=1")
    all_, _ = succeed("sample.py", *overrides, f"output={tmp_path / 'all'}", "batch_size=5")
    arrays = [np.load(made / "samples.npz")["arr_0"].astype(int) for made in (one, all_)]
    assert abs(arrays[0] - arrays[1]).max() <= 1  # matrix products of another size round differently
    from diffusion.samplers.ddim import DDIM

    model = diffusion.load(folder)
    x_0 = model.sample(5, seed=3, sampler=DDIM(steps=5), progress=False)
    here = diffusion.ground.images.to_uint8(x_0).permute(0, 2, 3, 1).numpy().astype(int)
    assert abs(here - arrays[1]).max() <= 1


def test_raw_and_averaged_weights_differ_and_both_are_used(run):
    folder, _ = run
    raw, ema = diffusion.load(folder, weights="raw"), diffusion.load(folder)
    contents = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    key = "denoiser.network.conv_in.weight"
    assert torch.equal(raw.state_dict()[key], contents["state_dict"][key])
    assert torch.equal(ema.state_dict()[key], contents["ema_state_dict"][key])
    assert not torch.equal(raw.state_dict()[key], ema.state_dict()[key])


def test_compare_draws_every_sampler_at_every_number_of_steps(run, tmp_path):
    folder, _ = run
    overrides = [f"ckpt={folder}", "steps=[2,3]", "samplers=[ddpm,heun,unipc]", "n=1"]
    picture, _ = succeed("compare.py", *overrides, f"output={tmp_path / 'out'}")
    assert picture == tmp_path / "out" / "compare.png"
    assert Image.open(picture).size[0] > 300


@pytest.mark.slow
def test_tasks_start_from_images_and_seeds(run, tmp_path):
    folder, _ = run
    overrides = [f"ckpt={folder}", "sampler=ddim", "sampler.steps=10", "npz=true"]
    seeds, _ = succeed("sample.py", *overrides, "n=1", "seed=4", f"output={tmp_path / 'seed'}")
    picture = seeds / "images" / "000000.png"
    mask = Image.new("L", (8, 8))
    mask.paste(255, (4, 0, 8, 8))
    mask.save(tmp_path / "mask.png")
    made = {}
    for task in (
        ["interpolate", "task.start=4", f"task.end={picture}", "task.points=4"],
        ["img2img", f"task.image={picture}", "task.t=300", "n=2"],
        ["inpaint", f"task.image={picture}", f"task.mask={tmp_path / 'mask.png'}", "n=2"],
    ):
        out, _ = succeed("sample.py", *overrides, f"task={task[0]}", *task[1:], f"output={tmp_path / task[0]}")
        made[task[0]] = np.load(out / "samples.npz")["arr_0"][..., 0].astype(int)
        assert json.loads((out / "samples.json").read_text())["task"]["class"].lower() == task[0]
    original = np.asarray(Image.open(picture)).astype(int)
    assert abs(made["interpolate"][0] - original).max() <= 1  # the seed's own image ...
    assert abs(made["interpolate"][-1] - original).mean() < 5  # ... and the same again, by way of its inverted noise
    assert abs(made["inpaint"][:, :, :4] - original[:, :4]).max() <= 1
    assert abs(made["inpaint"][:, :, 4:] - original[:, 4:]).max() > 1
    assert not np.array_equal(made["img2img"][0], made["img2img"][1])


def test_without_a_compiler_one_line_reports_it_and_kernels_off_does_not(run, tmp_path):
    none = {"CXX": "no-such-compiler", "XDG_CACHE_HOME": str(tmp_path)}
    overrides = ["sample.py", f"ckpt={run[0]}", "n=2", "sampler.steps=3"]
    for asked in "auto", "off":
        made, done = succeed(*overrides, f"kernels={asked}", f"output={tmp_path / asked}", **none)
        assert (made / "grid.png").exists()
        assert done.stderr.count("no-such-compiler does not compile the network's kernels") == (asked == "auto")


@pytest.mark.parametrize("script", ["train", "sample", "evaluate"])
def test_a_failed_requested_compilation_is_one_line_before_anything_is_written(run, tmp_path, script):
    caches = {"XDG_CACHE_HOME": str(tmp_path / "c"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "i")}
    out = tmp_path / "out"
    overrides = [*SMALL, f"run.root={out}"] if script == "train" else [f"ckpt={run[0]}", f"output={out}"]
    refused = command(f"{script}.py", *overrides, "compile=true", CXX="no-such-compiler", **caches)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: compile=true: ")
    assert "set compile=false" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_samples_are_completed_and_never_overwritten(run, tmp_path):
    folder, _ = run
    overrides = [f"ckpt={folder}", "sampler.steps=3", f"output={tmp_path / 'out'}"]
    made, _ = succeed("sample.py", *overrides, "n=2")
    before = (made / "images" / "000001.png").stat().st_mtime_ns
    succeed("sample.py", *overrides, "n=4")
    assert (made / "images" / "000001.png").stat().st_mtime_ns == before
    assert json.loads((made / "samples.json").read_text())["n"] == 4
    refused = command("sample.py", *overrides, "n=4", "seed=1")
    assert refused.returncode == 2
    assert "holds samples of another seed (0)" in refused.stderr


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


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A network that has been told the classes of the digits for a minute or so."""
    folder = tmp_path_factory.mktemp("conditional") / "run"
    overrides = ["experiment=digits", "conditioning=label", "prediction=v", "timesteps=stratified", "optimizer.lr=2e-3"]
    overrides += [
        "network.widths=[16,32]",
        "trainer.max_steps=400",
        "ema.decay=0.98",
        "callbacks.preview.n=10",
        "logger=none",
    ]
    return succeed("train.py", *overrides, f"run.dir={folder}")[0]


@pytest.mark.slow
def test_a_classifier_agrees_with_the_label_that_was_asked_for(conditional, tmp_path):
    """200 samples, 20 of each digit, judged by a classifier that learnt from the same data."""
    from sklearn.svm import SVC

    digits = Digits(channels=1, size=8, batch_size=1)
    images, labels = digits.split("train")[0], digits.split("train")[1].tensors["label"]
    judge = SVC(C=10).fit(images.flatten(1).numpy() / 255, labels.numpy())
    overrides = [f"ckpt={conditional}", "n=200", "sampler=dpm_solver_pp", "guidance.scale=2", "npz=true"]
    made, _ = succeed("sample.py", *overrides, "y=all", f"output={tmp_path / 'all'}")
    drawn = np.load(made / "samples.npz")["arr_0"].reshape(200, -1) / 255
    assert (judge.predict(drawn) == np.arange(200) % 10).mean() >= 0.95
    width, height = Image.open(made / "grid.png").size
    assert width > 1.5 * height  # a row a class, 16 images in each, with its name in front
    some, _ = succeed("sample.py", *overrides[:1], "n=6", "y=[7,3]", "sampler.steps=20", f"output={tmp_path / 'some'}")
    assert json.loads((some / "samples.json").read_text())["y"] == [7, 3]


@pytest.mark.slow
def test_labels_that_do_not_exist_are_refused_with_the_list(conditional, run):
    refused = command("sample.py", f"ckpt={conditional}", "y=[1,10]")
    assert refused.returncode == 2
    assert "y=10: no such class; choose among 0, 1, 2" in refused.stderr
    refused = command("sample.py", f"ckpt={run[0]}", "y=7")
    assert refused.returncode == 2
    assert "y=7: this model was trained without classes" in refused.stderr


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


def test_a_foreign_checkpoint_is_rejected(tmp_path):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.ckpt")
    (tmp_path / "garbage.ckpt").write_bytes(b"not a checkpoint")
    (tmp_path / "empty").mkdir()
    for ckpt, message in [
        ("other.ckpt", "not a checkpoint of this program"),
        ("garbage.ckpt", "not a readable checkpoint"),
        ("empty", "no checkpoint"),
        ("nowhere", "no such file or run folder"),
    ]:
        done = command("sample.py", f"ckpt={tmp_path / ckpt}")
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


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


@pytest.fixture(scope="module")
def evaluated(run):
    folder, _ = run
    return succeed("evaluate.py", f"ckpt={folder}", "metric=bpd", "metric.bpd.n=40", "metric.bpd.steps=5")


def test_evaluate_writes_the_number_its_description_and_a_figure(run, evaluated):
    folder, _ = run
    path, done = evaluated
    assert path == folder / "evaluation" / "results.jsonl"
    [found] = map(json.loads, path.read_text().splitlines())
    assert found["value"] == pytest.approx(sum(found["parts"].values()))
    assert set(found["parts"]) == {"prior", "diffusion", "decoder"}
    assert found["standard_error"] > 0
    wanted = {"n": 40, "steps": 5, "T": 1000, "variance": "fixed_small", "clipping": "static", "seed": 0}
    data = json.loads((folder / "manifest.json").read_text())["data"]
    assert found["protocol"] == {**wanted, "data": data}
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    digest = found["model"].pop("weights_sha256")
    assert digest == checkpoint.weights_sha256(diffusion.load(folder).denoiser)
    assert found["model"] == {
        "checkpoint": str(folder / "checkpoints" / "last.ckpt"),
        "step": saved["global_step"],
        "weights": "ema",
    }
    assert found["summary"] in done.stdout
    assert f"{found['value']:.4f} bits/dim" in done.stdout
    assert "bits/dim: 100%" in done.stderr
    assert found["figure"] == "bpd_0001.png"
    assert Image.open(path.with_name("bpd_0001.png")).size[0] > 300


def test_evaluate_measures_the_validation_images_with_the_weights_asked_for(run, evaluated, tmp_path, capsys):
    from diffusion.evaluation.metrics.bpd import BPD

    folder, _ = run
    ema = json.loads(evaluated[0].read_text().splitlines()[0])["value"]
    overrides = [f"ckpt={folder}", "metric.bpd.n=40", "metric.bpd.steps=5", "batch_size=7", f"output={tmp_path}"]
    measured = {}
    for weights in "ema", "raw":
        assert cli.main("evaluate", [*overrides, f"weights={weights}"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "results.jsonl")
        measured[weights] = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[-1])["value"]
    assert measured["ema"] == pytest.approx(ema, rel=1e-5)  # in batches of another size
    assert measured["raw"] != pytest.approx(ema, rel=1e-5)
    model = diffusion.load(folder)
    data = build.instantiate(model.config["dataset"])
    index = torch.arange(40) * 297 // 40
    x, condition = data.split("val")
    x_0 = diffusion.ground.images.from_uint8(x[index])
    here = BPD(steps=5).bound(model.denoiser, model.space, x_0, index, condition.rows(index)).total.mean().item()
    assert here == pytest.approx(ema, rel=1e-5)


def test_a_mistake_in_evaluate_is_one_line(run, tmp_path, capsys):
    folder, _ = run
    (tmp_path / "file").touch()
    for overrides, message in [
        ([f"ckpt={tmp_path / 'nowhere'}"], "no such file or run folder"),
        ([f"ckpt={folder}", "weights=best"], "weights=best: "),
        ([f"ckpt={folder}", "metric.bpd.variance=large"], "metric.bpd.variance=large: expected auto, fixed_small or"),
        ([f"ckpt={folder}", "metric.bpd.steps=1001"], "metric.bpd.steps=1001: the bound has T=1000 terms"),
        ([f"ckpt={folder}", "metric.bpd.n=1"], "expected at least 2, for the standard error"),
        ([f"ckpt={folder}", "dataset.path=here"], "dataset.path='here': expected null, since the digits"),
        ([f"ckpt={folder}", f"output={tmp_path / 'file' / 'x'}"], "cannot be written"),
        ([f"ckpt={folder}", "accelerator=abacus"], "accelerator=abacus: no such device here"),
    ]:
        assert cli.main("evaluate", overrides) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line
