"""The commands that follow a training, run as a user runs them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import diffusion
from diffusion.commands import cli
from diffusion.data.digits import Digits
from diffusion.runs import build, checkpoint
from tests.helpers.processes import SMALL, command, succeed


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
