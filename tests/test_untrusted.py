"""Files of strangers: nothing in them is run, what is damaged is refused in one line, and no constructor sees it."""

import copy
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusion.config import registry, upgrades
from diffusion.ground.errors import UserError
from diffusion.runs import build, checkpoint
from diffusion.runs import compose as configs
from tests.helpers.commands import command, tiny

# Where the modules of today's parts were.
ROOMS_OF_0 = {
    ".optimization.lr_schedule.": ".optimizers.",
    "diffusion.parametrization": "diffusion.prediction",
    "diffusion.optimization": "diffusion",
}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def contents():
    """A checkpoint of a tiny network, as `checkpoint.read` gives it."""
    config = configs.OmegaConf.to_container(configs.compose("train", tiny()), resolve=True)
    state = build.model(config).state_dict()
    return {"config": config, "state_dict": state, "ema_state_dict": state, "global_step": 3}


@pytest.fixture
def write(tmp_path, contents):
    """Writes the checkpoint with the keys given changed ("config.sampler._target_": ...); returns its path."""

    def write(changes):
        changed = copy.deepcopy(contents)
        if "format" not in changes:  # a file of format 0, which has no number
            for node in [node for _, node in registry.nodes(changed["config"]) if "_target_" in node]:
                for room, before in ROOMS_OF_0.items():
                    node["_target_"] = node["_target_"].replace(room, before)
            changed["config"]["guidance"]["_target_"] = "diffusion.guidance.Guidance"
            changed["config"]["conditioning"] = {"classes": None, "drop": 0.0}
            for key in registry.WIRING:
                changed["config"].pop(key)
            changed["config"]["preview"] = {"n": 4, "sampler": {"_target_": "diffusion.samplers.ddim.DDIM", "steps": 5}}
        for key, value in changes.items():
            *path, last = key.split(".")
            node = changed
            for name in path:
                node = node[name]
            node[last] = value
        torch.save(changed, tmp_path / "made.ckpt")
        return tmp_path / "made.ckpt"

    return write


class Writes:
    """Unpickled, it would run a command that writes the file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def pickled(path, trap):
    path.write_bytes(pickle.dumps(Writes(trap)))


def saved(path, trap):
    torch.save({"config": {}, "state_dict": Writes(trap)}, path)


def saved_the_old_way(path, trap):
    torch.save({"config": {}, "state_dict": Writes(trap)}, path, _use_new_zipfile_serialization=False)


def smuggled(path, trap):
    """A sound archive whose pickle was replaced."""
    torch.save({"config": {}, "state_dict": torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, pickle.dumps(Writes(trap), protocol=2) if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("make", [pickled, saved, saved_the_old_way, smuggled])
@pytest.mark.parametrize(("name", "key"), [("sample", "ckpt"), ("train", "resume")])
def test_a_pickle_is_not_run(tmp_path, make, name, key, capsys):
    path, trap = tmp_path / "hostile.ckpt", tmp_path / "written"
    make(path, trap)
    pickle.loads(pickle.dumps(Writes(trap)))  # the trap works
    assert trap.exists()
    trap.unlink()
    done = command(name, f"{key}={path}", *(tiny(f"run.root={tmp_path}") if name == "train" else []), capsys=capsys)
    assert done.code == 2
    assert done.err.startswith(f"error: {path}: not a readable checkpoint")
    assert not trap.exists()


HOSTILE = [
    "os.system",
    "builtins.exec",
    "builtins.eval",
    "subprocess.Popen",
    "posix.system",
    "torch.load",
    "torch.hub.load",
    "hydra.utils.instantiate",
    "diffusion.runs.build.instantiate",
    "diffusion.ground.images.write_png",
    "diffusion.data.image_folder.shutil.rmtree",
    "diffusion.data.decoding.read_image",
    "diffusion.schedule.torch.load",
    "diffusion.samplers.ddim.DDIM.__init__",
    "diffusion.samplers.base.Sampler",
    "..os.system",
    "",
    None,
    7,
    ["os.system"],
]


@pytest.mark.parametrize("target", HOSTILE, ids=str)
def test_only_what_is_registered_is_built(write, target, monkeypatch):
    """It is refused by name before anything is built: the network, which comes first, is never asked for."""
    monkeypatch.setattr(build, "instantiate", lambda *_, **__: pytest.fail("something was built"))
    for group in ("network", "schedule", "prediction", "sampler", "clipping", "optimizer", "dataset"):
        path = write({f"config.{group}": {"_target_": target, "args": ["touch written"], "steps": 3}})
        with pytest.raises(UserError, match="which no file of conf/ names") as refused:
            checkpoint.load(path)
        assert repr(target) in str(refused.value)


def test_targets_that_are_hidden_deeper_are_refused_too(write):
    for value in ({"x": [{"_target_": "os.system"}]}, [[{"_target_": "os.system"}]]):
        with pytest.raises(UserError, match=r"os\.system"):
            checkpoint.load(write({"config.run": value}))


def test_a_hostile_config_stops_both_commands_and_a_rerun(write, tmp_path, capsys):
    path = write({"config.sampler": {"_target_": "os.system", "command": f"touch {tmp_path / 'written'}"}})
    (tmp_path / "run").mkdir()
    manifest = {"config": checkpoint.torch.load(path, weights_only=True)["config"], "sessions": []}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    root = f"run.root={tmp_path / 'runs'}"
    for line in (
        ["sample", f"ckpt={path}"],
        ["train", *tiny(f"resume={path}", root)],
        ["train", *tiny(f"resume={path}", "resume_mode=weights", root)],
        ["train", f"rerun={tmp_path / 'run'}", root],
    ):
        done = command(*line, capsys=capsys)
        assert done.code == 2
        assert "'os.system'" in done.err
    assert not (tmp_path / "written").exists()
    assert not (tmp_path / "runs").exists()


def test_every_choice_of_ours_is_registered():
    assert "diffusion.samplers.ddpm.DDPM" in registry.registered()
    others = {group for name, group in registry.registered().items() if not name.startswith("diffusion.")}
    assert others == {"strategy"}


@pytest.mark.parametrize("name", ["os.system", "DDIM", "UNet", "Conditioner", "", None, 7, ["Label"]])
def test_a_file_opens_conditions_with_conditioners_alone(write, contents, name, monkeypatch):
    monkeypatch.setattr(build, "instantiate", lambda *_, **__: pytest.fail("something was built"))
    config = registry.named(contents["config"])
    path = write({"format": upgrades.FORMAT, "config": config, "config.conditioning": {"label": {"class": name}}})
    with pytest.raises(UserError, match=r"conditioning.label is .*, which no file of conf/conditioning/ names"):
        checkpoint.load(path)


@pytest.mark.parametrize("key", registry.NODES)
@pytest.mark.parametrize("name", ["os.system", "DDIMs", "BPD", "Batch", "", None, 7, ["DDIM"]])
def test_a_file_builds_in_a_group_what_belongs_to_it_and_nothing_else(write, contents, key, name, monkeypatch):
    monkeypatch.setattr(build, "instantiate", lambda *_, **__: pytest.fail("something was built"))
    other = "UNet" if key != "network" else "DDIM"
    for asked in (name, other):
        node = {"class": asked, "steps": 3}
        config = registry.named(contents["config"])
        path = write({"format": upgrades.FORMAT, "config": config, f"config.{key}": node})
        with pytest.raises(UserError, match=f"{key} is .*, which no file of conf/.*/ names") as refused:
            checkpoint.load(path)
        assert repr(asked) in str(refused.value)


@pytest.mark.parametrize("key", ["logger", "callbacks", "trainer", "task", "metric", "run", "network.inner"])
def test_a_file_builds_nothing_outside_the_groups(write, contents, key):
    for name in ("class", "_target_"):
        config = registry.named(contents["config"])
        path = write({"format": upgrades.FORMAT, "config": config, f"config.{key}": {name: "UNet"}})
        with pytest.raises(UserError, match=f"{key} names 'UNet', but is not a part"):
            checkpoint.load(path)


OF_THE_MODEL = {
    *("network", "schedule", "prediction", "loss", "weighting", "sampler", "clipping", "guidance", "conditioning"),
    *("space", "dataset", "metric", "task"),
}


@pytest.mark.parametrize(
    "line",
    [
        ["sample", "n=1", "sampler=ddim", "sampler.steps=1"],
        ["compare", "samplers=[ddim]", "steps=[1]", "n=1"],
        ["evaluate", "metric.bpd.n=2", "metric.bpd.steps=2"],
        ["convert", "to=safetensors"],
    ],
    ids=str,
)
def test_of_a_file_only_the_groups_of_the_model_are_built(write, tmp_path, line, monkeypatch, capsys):
    """Its optimiser, learning rate, timesteps and averages are neither built nor looked at."""
    built, instantiate = set(), registry.class_at
    monkeypatch.setattr(build, "class_at", lambda path: built.add(registry.registered()[path]) or instantiate(path))
    odd = {"optimizer": {"lr": "x"}, "lr_schedule": {"a": 1}, "timesteps": {}, "ema": {"b": [2]}}
    path = write({f"config.{group}": node for group, node in odd.items()})
    name, *rest = line
    done = command(name, f"ckpt={path}", *rest, f"output={tmp_path / 'out'}", capsys=capsys)
    assert done.code == 0, done.err
    assert {"network", "schedule", "sampler"} <= built <= OF_THE_MODEL


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10),
    st.floats(-1e3, 1e3) | st.just(float("nan")),
    st.text(max_size=4),
    st.lists(st.integers(-2, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
LEAVES = [
    *(f"network.{key}" for key in ("widths", "layers", "attention", "dropout", "patch", "norm_groups")),
    *("schedule.T", "schedule.beta_start", "dataset.channels", "dataset.size", "sampler.steps", "sampler.times"),
    *("network", "schedule", "dataset", "prediction", "seed", "sampler", "clipping", "optimizer.lr"),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.dictionaries(st.sampled_from([f"config.{leaf}" for leaf in LEAVES]), ODD_VALUES, min_size=1, max_size=2)
)
def test_an_odd_config_is_built_or_rejected_with_a_message(write, changes):
    changes = dict(sorted(changes.items(), key=lambda change: -len(change[0])))  # a leaf before its section
    try:
        model = checkpoint.load(write(changes))
    except UserError:
        return
    assert isinstance(model, build.LitDiffusion)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {3: 1, "a": 2}}, "not a config of this program"),
        ({"config": [1]}, "not a checkpoint of this program"),
        ({"config.network": torch.zeros(1)}, "not a config of this program"),
        ({"config": {}}, "builds no model"),
        ({"ema_state_dict": {}}, "do not fit its network"),
        ({"ema_state_dict": 5}, "do not fit its network"),
        ({"ema_state_dict": {"denoiser.network.conv_in.weight": torch.zeros(2)}}, "do not fit its network"),
    ],
)
def test_what_is_inside_must_be_ours(write, changes, message):
    with pytest.raises(UserError, match=message):
        checkpoint.load(write(changes))


def test_weights_alone_cannot_be_resumed(write, capsys, tmp_path):
    line = tiny(f"resume={write({})}", f"run.root={tmp_path}")
    done = command("train", *line, capsys=capsys)
    assert done.code == 2
    assert "use only its weights, resume_mode=weights" in done.err


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cut_or_a_flipped_bit_is_seen(write, contents, data):
    """Anywhere in the file: it is refused, or what is read is what was written (padding holds nothing)."""
    path = write({"format": upgrades.FORMAT, "config": registry.named(contents["config"])})
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    try:
        read = checkpoint.read(path)
    except UserError:
        return
    assert read["config"] == contents["config"]
    assert all(torch.equal(value, read["state_dict"][key]) for key, value in contents["state_dict"].items())


def test_an_archive_that_is_none(tmp_path):
    for name, raw in (("empty", b""), ("zip", b"PK\x05\x06" + bytes(18)), ("text", b"weights"), ("zeros", bytes(5000))):
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(raw)
        with pytest.raises(UserError, match="not a readable checkpoint"):
            checkpoint.read(path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(tmp_path / "zeros.ckpt", tmp_path / "run" / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match="1 checkpoints, all of them damaged"):
        checkpoint.find(Path(tmp_path / "run"))
