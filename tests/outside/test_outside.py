"""A user's own project, which touches nothing in the package: its parts, of every kind, by the real commands."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch

import diffusion
from diffusion.commands import cli
from diffusion.config import conf_folders, registry
from diffusion.ground.errors import UserError
from tests.helpers.commands import Done
from tests.test_kill import assert_equal

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONF, PARTS = HERE / "conf", HERE / "my_parts"
SHORT = [
    *("checkpoints.every_n_steps=2", "ema.decay=0.9", "optimizer.lr=1e-2", "schedule.T=50", "kernels=off"),
    *("callbacks.preview.n=2", "callbacks.preview.sampler=ddim_fast", "callbacks.preview.sampler.steps=2"),
]
WAVES = [
    *("dataset=waves", "dataset.n=128", "dataset.batch_size=32", "network=plain", "network.width=8"),
    *("schedule=straight", "weighting=bands", "conditioning=wavelength", "conditioning.wavelength.drop=0.2"),
    *("callbacks=[default,heartbeat]", "logger=lines", "strategy=counted", "strategy.called=updates"),
    *("trainer.max_steps=20", "validate.every_n_steps=10", "trainer.log_every_n_steps=1", *SHORT),
]
DIGITS = [
    *("dataset=digits", "network=unet_tiny", "network.widths=[8,16]", "network.attention=[]", "space=haar"),
    *("dataset.val_images=32", "trainer.max_steps=3", "logger=none", "strategy=cpu", *SHORT),
]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def _project():
    """What --config-dir leaves in the process is gone again."""
    path, variable = [*sys.path], os.environ.pop(conf_folders.VARIABLE, None)
    yield
    sys.path[:] = path
    os.environ.pop(conf_folders.VARIABLE, None)
    if variable is not None:
        os.environ[conf_folders.VARIABLE] = variable
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_parts"]:
        del sys.modules[name]


def run(name, *overrides):
    """`python -m diffusion NAME --config-dir tests/outside/conf WORDS`, as far as one process can."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(name, [f"--config-dir={CONF}", *map(str, overrides)])
    return Done(code, out.getvalue(), err.getvalue())


def done(name, *overrides):
    """The same of a command that succeeds."""
    found = run(name, *overrides)
    assert found.code == 0, found.err
    return found


def process(*overrides, **options):
    """python WORDS, as a user types it."""
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    env.pop(conf_folders.VARIABLE, None)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *overrides], cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True, **options
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("outside")


@pytest.fixture(scope="module")
def waves(folder):
    """A training with own data, network, schedule, weighting, condition, callback, logger and strategy."""
    return done("train", *WAVES, "callbacks.preview.condition.wavelength=[5,9]", f"run.dir={folder / 'waves'}")


@pytest.fixture(scope="module")
def digits(folder):
    """A training in an own space."""
    return done("train", *DIGITS, f"run.dir={folder / 'digits'}")


@pytest.fixture
def sample(waves, tmp_path):
    """Draws two samples; returns their values and their description."""

    def draw(*overrides, ckpt=waves.folder):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        done("sample", f"ckpt={ckpt}", "n=2", *overrides, f"output={out}")
        x = [np.load(file) for file in sorted((out / "arrays").iterdir())] if (out / "arrays").exists() else []
        assert len(list((out / "images").iterdir())) == 2
        return x, json.loads((out / "samples.json").read_text())

    return draw


def state(run_folder):
    return torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)


def lines(run_folder):
    return [json.loads(line) for line in (run_folder / "lines.jsonl").read_text().splitlines()]


def config(run_folder):
    return json.loads((run_folder / "manifest.json").read_text())["config"]


def results(run_folder):
    return [json.loads(line) for line in (run_folder / "evaluation" / "results.jsonl").read_text().splitlines()]


# What there is


def test_a_part_is_one_yaml_and_at_most_60_lines_of_python():
    modules = {file.stem: file.read_text() for file in PARTS.glob("*.py") if file.name != "__init__.py"}
    named = re.findall(r"_target_: my_parts\.(\w+)\.\w+", "\n".join(file.read_text() for file in CONF.rglob("*.yaml")))
    assert sorted(named) == sorted(modules)
    assert len(modules) == 14
    assert max(text.count("\n") for text in modules.values()) <= 60


def test_every_kind_of_part_is_there():
    done("train", "--info=searchpath")  # the folder is in use
    own = {group for path, group in registry.registered().items() if path.startswith("my_parts.")}
    assert own == {file.name for file in CONF.iterdir() if file.is_dir()}
    assert conf_folders.commands()["count"] == "my_parts.count.run"


def test_the_readme_shows_these_very_files():
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Extend\n")[2].partition("\n## ")[0]
    shown = re.findall(r"`my/([\w./]+)`:\n\n```\w+\n(.*?)```", section, re.S)
    assert [name for name, _ in shown] == [
        *("my_parts/euler_half.py", "conf/sampler/euler_half.yaml", "conf/sampler/ddim_fast.yaml"),
    ]
    for name, text in shown:
        assert text == (HERE / name).read_text(), name
    described = {*re.findall(r"`(\w+\.py)`", section)}
    assert described >= {file.name for file in PARTS.glob("*.py")} - {"__init__.py", "euler_half.py"}


# A training


def test_data_network_schedule_and_condition(waves):
    model, stored = diffusion.load(waves.folder), config(waves.folder)
    assert [type(part).__name__ for part in (model.denoiser.network, model.denoiser.schedule)] == ["Plain", "Straight"]
    alpha, _ = model.denoiser.schedule(25)
    assert alpha.item() ** 2 == pytest.approx(1 - 0.999 / 2)
    assert (model.shape, stored["dataset"]["shape"]) == ((2, 8, 8), [2, 8, 8])  # as the data set declares
    assert stored["space"]["class"] == "Standardized"  # which its yaml chose
    described = stored["conditioning"]["wavelength"]
    assert (4 <= described["low"] < 5, 15 < described["high"] <= 16) == (True, True)  # which the data settled
    assert re.search(r"model +Plain, .* given wavelength\nprocess +Straight schedule of 50 steps", waves.out)


def test_the_parameters_of_a_weighting_are_trained_and_stored(waves):
    learnt = state(waves.folder)["state_dict"]["objective.weighting.log_loss"]
    assert (learnt.shape, bool((learnt.abs() > 1e-3).all())) == ((4,), True)
    assert (waves.folder / "schedule.png").exists()  # with the weights


def test_callback_logger_and_strategy(waves):
    assert (waves.folder / "heartbeat.txt").read_text() == "20\n"
    assert "\n20 updates on cpu\n" in waves.out
    logged = lines(waves.folder)
    pictures = {entry["picture"]: Path(entry["path"]) for entry in logged if "picture" in entry}
    assert pictures.keys() >= {"schedule", "data", "preview", "preview/x_0"}
    assert all(path.exists() for path in pictures.values())
    assert len([entry for entry in logged if "train/loss" in entry]) == 20
    assert "Lines shows numbers only" not in waves.out


def test_a_run_that_was_killed_ends_with_the_same_bytes(waves, folder):
    overrides = [*WAVES, f"run.dir={folder / 'killed'}"]
    beat = folder / "killed" / "heartbeat.txt"
    with process("train.py", f"--config-dir={CONF}", *overrides, "callbacks.heartbeat.rest=0.3") as training:
        deadline = time.monotonic() + 60
        while (not beat.exists() or int(beat.read_text() or 0) < 7) and training.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        training.send_signal(signal.SIGKILL)
        training.communicate()
    assert training.returncode == -signal.SIGKILL
    resumed = done("train", *overrides, "resume=auto")
    assert 6 <= int(re.search(r"resuming .* at step (\d+),", resumed.out)[1]) < 20
    whole, second = state(waves.folder), state(folder / "killed")
    assert second["global_step"] == 20
    for part in ("state_dict", "ema_state_dict", "optimizer_states", "lr_schedulers", "Waves"):
        assert_equal(whole[part], second[part], part)
    losses = [
        {entry["step"]: entry["val/loss"] for entry in lines(each) if "val/loss" in entry}
        for each in (waves.folder, folder / "killed")
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("callbacks.preview.condition.length=3", "was trained without it; it takes wavelength"),
        ("callbacks.preview.condition.wavelength=red", "condition.wavelength=red: expected a length in pixels"),
        ("schedule.last=2", "expected a number above 0 and below 1"),
        ("weighting.bands=0", "weighting.bands=0: expected a whole number, 1 or more"),
        ("network=plane", "network=plane: no such network; "),
        ("callbacks.heartbeat.ever=2", "no such key; did you mean callbacks.heartbeat.every?"),
    ],
)
def test_a_mistake_is_one_line_and_makes_no_run_folder(tmp_path, word, message):
    overrides = [each for each in WAVES if each.partition("=")[0] != word.partition("=")[0]]
    refused = run("train", *overrides, word, f"run.dir={tmp_path / 'run'}")
    assert (refused.code, refused.err.count("error:")) == (2, 1)
    assert message in refused.err
    assert not (tmp_path / "run").exists()


# Sampling


def test_a_sampler(sample):
    x, described = sample("sampler=euler_half", "sampler.steps=5")
    assert described["sampler"] == {"class": "EulerHalf", "steps": 5, "times": "trailing"}
    assert x[0].shape == (2, 8, 8)
    plain, _ = sample("sampler=ddim", "sampler.steps=5")
    assert np.std(x) < np.std(plain)  # it is blurred


def test_a_yaml_of_values_alone(sample):
    x, described = sample("sampler=ddim_fast")
    assert described["sampler"] == {"class": "DDIM", "steps": 7}
    assert np.array_equal(x, sample("sampler=ddim", "sampler.steps=7")[0])


def test_a_condition_by_its_own_name(sample, waves):
    x, described = sample("sampler=ddim_fast", "condition.wavelength=[4,16]")
    assert described["condition"] == {"wavelength": [[4], [16]]}
    assert not np.array_equal(x, sample("sampler=ddim_fast", "condition.wavelength=16")[0])
    refused = run("sample", f"ckpt={waves.folder}", "condition.length=3")
    assert refused.err == "error: condition.length=3: this model was trained without it; it takes wavelength\n"


def test_a_guidance_with_a_second_model(sample, waves):
    overrides = ["sampler=ddim_fast", "condition.wavelength=8"]
    plain, _ = sample(*overrides)
    x, described = sample(*overrides, "guidance=against", "guidance.scale=3")
    assert (described["guidance"]["class"], len(described["guidance"]["weaker_sha256"])) == ("Against", 64)
    assert not np.allclose(x, plain)
    other, _ = sample(*overrides, "guidance=against", "guidance.scale=3", f"guidance.ckpt={waves.folder}/last")
    assert np.array_equal(x, other)  # the same model's raw weights
    assert np.array_equal(plain, sample(*overrides, "guidance=against", "guidance.scale=1")[0])


@pytest.mark.parametrize(("axis", "dim"), [("width", -1), ("height", -2)])
def test_a_task(sample, axis, dim):
    x, described = sample("task=symmetric", f"task.axis={axis}", "sampler.steps=5")
    assert (described["task"]["axis"], described["sampler"]["class"]) == (axis, "DDIM")
    assert np.array_equal(x, np.flip(x, dim))


def test_compare(waves, tmp_path):
    overrides = ["samplers=[euler_half,ddim_fast]", "steps=[2,4]", "condition.wavelength=[5,9]", "n=2"]
    done(
        "compare",
        f"ckpt={waves.folder}",
        *overrides,
        "guidance=against",
        "task=symmetric",
        f"output={tmp_path / 'out'}",
    )
    described = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert (tmp_path / "out" / "compare.png").exists()
    assert [described["samplers"][name]["class"] for name in ("euler_half", "ddim_fast")] == ["EulerHalf", "DDIM"]


# Evaluation, a space, a command


def test_a_metric(waves):
    overrides = ["sampler=ddim_fast", "condition.wavelength=8", "metric.brightness.bins=5"]
    found = done("evaluate", f"ckpt={waves.folder}", "metric=brightness", *overrides)
    row = results(waves.folder)[-1]
    assert "16 samples are brighter by " in found.out
    assert (row["metric"], row["value"]) == ("brightness", pytest.approx(row["samples"] - row["data"], abs=1e-5))
    drawn = row["protocol"]["sampling"]
    assert (drawn["sampler"]["class"], drawn["condition"]["wavelength"]) == ("DDIM", [[8]])
    refused = run("evaluate", f"ckpt={waves.folder}", "metric=brightness", "metric.brightness.clipping=none")
    assert "metric.brightness.clipping: no such key" in refused.err
    refused = run("evaluate", f"ckpt={waves.folder}", "dataset.path=elsewhere")
    assert refused.err == "error: dataset.path=elsewhere: the dataset of this model has no path\n"
    done("evaluate", f"ckpt={waves.folder}", "metric.bpd.n=8", "metric.bpd.steps=4")
    assert np.isfinite(results(waves.folder)[-1]["value"])  # the bound, of floats


def test_a_space(digits, sample):
    model = diffusion.load(digits.folder)
    space, x = model.space, torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    assert (type(space).__name__, model.shape) == ("Haar", (4, 4, 4))
    assert "images of 1x8x8 to train on" in digits.out
    assert torch.equal(space.decode(space.encode(x)), x)
    norms = space.encode(x).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, diffusion.ground.images.from_uint8(x).flatten(1).norm(dim=1))
    names = {file.name.partition("epoch_")[0] for file in (digits.folder / "samples").iterdir()}
    assert names == {"", "data.png", "loss_", "states_", "strip_", "x_0_"}
    refused = run("train", *DIGITS, "conditioning=wavelength", f"run.dir={digits.folder}_2")
    assert "error: conditioning.wavelength: digits has no column of that name" in refused.err
    with pytest.raises(UserError, match="space=haar takes pictures of even sides, not of 7x8"):
        type(space)((1, 7, 8))


def test_images_are_encoded_and_decoded_by_a_space(digits, sample, tmp_path):
    _, described = sample("sampler=euler_half", "keep=all", "npz=true", ckpt=digits.folder)
    picture = tmp_path / "0" / "images" / "000000.png"
    with np.load(tmp_path / "0" / "samples.npz") as file:
        assert file["arr_0"].shape == (2, 8, 8, 1)
    _, described = sample("task=img2img", f"task.image={picture}", "sampler=ddim_fast", ckpt=digits.folder)
    assert described["task"]["class"] == "Img2Img"


def test_bits_of_a_space_are_those_of_a_density(digits):
    found = done("evaluate", f"ckpt={digits.folder}", "metric.bpd.n=8", "metric.bpd.steps=4")
    assert "bits/dim of a density in the data's units" in found.out
    assert np.isfinite(results(digits.folder)[-1]["value"])


def test_a_command(waves):
    overrides = ["-m", "diffusion", "count", "--config-dir", str(CONF), f"ckpt={waves.folder}", "depth=2"]
    with process(*overrides) as counting:
        out, err = counting.communicate()
    assert counting.returncode == 0, err
    counts = json.loads(Path(out.splitlines()[-1]).read_text())
    assert counts == {
        "denoiser.network": sum(
            value.numel() for name, value in state(waves.folder)["state_dict"].items() if name.startswith("denoiser.")
        ),
        "objective.weighting": 4,
    }
    assert "Count the numbers in a checkpoint." in done(None, "--help").out
    assert "of the names that are counted together" in done("count", "--help").out
    refused = run("count", f"ckpt={waves.folder}", "dept=2")
    assert (refused.code, refused.err) == (2, "error: dept: no such key; did you mean depth?\n")
