"""`sample.py`: every key changes what is drawn, and is recorded, or it is refused; what is written where."""

import json
import shutil
from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from diffusion.evaluation import plots
from diffusion.ground import images
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs import compose as configs
from diffusion.runs.groups import choice, groups_of, known_keys
from tests.helpers.commands import command
from tests.helpers.random_model import random_model

pytestmark = pytest.mark.filterwarnings("ignore")

TRAINED = ["schedule.T=20", "prediction=v", "sampler=ddim", "sampler.steps=4", "guidance.scale=3"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two models, two pictures and two masks."""
    root = tmp_path_factory.mktemp("root")
    random_model(root / "model.ckpt", *TRAINED)
    for seed, name in enumerate(["labels.ckpt", "others.ckpt"]):
        random_model(root / name, *TRAINED, f"seed={seed}", classes=["zero", "one", "two", "three"])
    for k in range(2):
        Image.fromarray(np.full((8, 8), 80 * k + 40, np.uint8)).save(root / f"picture{k}.png")
        mask = np.zeros((8, 8), np.uint8)
        mask[:, 2 + 2 * k :] = 255
        Image.fromarray(mask).save(root / f"mask{k}.png")
    return root


class Drawn(NamedTuple):
    """code, err: of the command. pixels: of its images. described: samples.json. files: beside the images."""

    code: int
    err: str
    pixels: list
    described: dict
    files: list


@pytest.fixture
def sample(root, tmp_path, capsys, monkeypatch):
    """Runs `sample.py`, or `compare.py` where that is the first word, into a folder."""
    table = []
    draw = plots.draw_table
    monkeypatch.setattr(plots, "draw_table", lambda rows, *names: table.append(rows) or draw(rows, *names))

    def run(*overrides, output=tmp_path / "out"):
        table.clear()
        name, overrides = ("compare", overrides[1:]) if overrides[0] == "compare" else ("sample", overrides)
        done = command(name, *(word.format(root=root) for word in overrides), f"output={output}", capsys=capsys)
        if done.code:
            return Drawn(done.code, done.err, [], {}, [])
        if table:
            pixels = [picture.numpy() for row in table[0].values() for picture, _ in row]
        else:
            pixels = [np.asarray(Image.open(file)) for file in sorted((output / "images").iterdir())]
        described = json.loads((output / "samples.json").read_text()) | {"seconds": 0}
        return Drawn(0, done.err, pixels, described, sorted(file.name for file in output.iterdir()))

    return run


def differ(one, two, by=1):
    return len(one) != len(two) or any(
        a.shape != b.shape or abs(a.astype(int) - b.astype(int)).max() > by for a, b in zip(one, two, strict=True)
    )


BASE = ["ckpt={root}/labels.ckpt", "n=2", "y=[zero,one]"]
RUNS = {  # what is run, and the words of each
    "generate": ["task=generate"],
    "img2img": ["task=img2img", "task.image={root}/picture0.png", "task.t=12"],
    "inpaint": [
        *("task=inpaint", "task.image={root}/picture0.png", "task.mask={root}/mask0.png"),
        *("task.resamples=2", "task.jump=2"),
    ],
    "interpolate": ["task=interpolate", "task.start=3", "task.end=8", "task.points=2", "sampler.steps=4"],
    "compare": ["samplers=[ddim,unipc]", "steps=[2,3]"],
}
# Another value of every key, and the words that it needs beside it: the images differ, and samples.json does.
OTHERS = {
    "ckpt": ["{root}/others.ckpt"],
    "n": ["3"],
    "seed": ["5"],
    "y": ["three"],
    "weights": ["raw"],
    "sampler": ["euler", "sampler.steps=4"],
    "sampler.steps": ["2"],
    "sampler.times": ["quadratic"],
    "sampler.eta": ["1"],
    "sampler.noise": ["brownian", "sampler.eta=1"],
    "clipping": ["none"],
    "clipping.percentile": ["0.9", "clipping=dynamic"],
    "guidance": ["cfg"],
    "guidance.scale": ["6"],
    "guidance.interval": ["[11,20]"],
    "guidance.of": ["sigma", "guidance.interval=[0,1]"],
    "guidance.rescale": ["0.7"],
    "guidance.ckpt": ["{root}/others.ckpt", "guidance=auto"],
    "guidance.weights": ["raw", "guidance=auto"],
    "task.image": ["{root}/picture1.png"],
    "task.mask": ["{root}/mask1.png"],
    "task.t": ["6"],
    "task.resamples": ["3"],
    "task.jump": ["1"],
    "task.start": ["4"],
    "task.end": ["{root}/picture1.png"],
    "task.points": ["3", "n=3"],
    "samplers": ["[ddim,heun]"],
    "steps": ["[2,4]"],
}
# The images are the same, and there is a file more.
SHOWN = {"keep": ("all", "strip.png"), "npz": ("true", "samples.npz")}
# The images are the same, but for rounding.
MEANS = {"batch_size": ["1"], "accelerator": ["cpu"], "kernels": ["off"]}
# A value that is refused, and what the line says.
OF_OTHERS = dict.fromkeys(["variance", "order", "churn", "churn_min", "churn_max", "noise_scale"], "1")
OF_OTHERS = {f"sampler.{key}": value for key, value in {**OF_OTHERS, "stochastic": "true"}.items()}
REFUSED = {
    **{(task, key): (value, "no such key") for task in RUNS for key, value in OF_OTHERS.items()},
    **{("compare", key): (value, f"{key} has no effect: compare draws") for key, value in OF_OTHERS.items()},
    ("compare", "sampler.eta"): ("1", "sampler.eta has no effect"),
    ("compare", "sampler.noise"): ("brownian", "sampler.noise has no effect"),
    ("compare", "sampler"): ("ddim", "sampler has no effect: compare draws with several samplers: set samplers="),
    ("compare", "sampler.steps"): ("3", "and steps=[10,20]"),
    ("compare", "sampler.times"): ("quadratic", "sampler.times has no effect"),
    ("interpolate", "seed"): ("5", "seed has no effect: task.start and task.end set the noise"),
    **{(task, "guidance.step"): ("4", "guidance.step: the model's own guidance has no such key") for task in RUNS},
    **{(task, "condition"): ("1", "condition is a section") for task in RUNS},
    **{(task, "condition.label"): ("one", "y= is short for condition.label=: use one of them") for task in RUNS},
    **{(task, "condition.vector"): ("1", "this model was trained without it; it takes label") for task in RUNS},
    ("interpolate", "task.t"): ("6", "only pictures are diffused up to t"),
}


def keys_of(task):
    name = "compare" if task == "compare" else "sample"
    overrides = [word.format(root="x") for word in RUNS[task]]
    keys = known_keys(configs.compose(name, overrides), groups_of(name))
    return [key for key in keys if key not in ("task", "output", "compile")]  # compile: see test_compilation.py


BASES = {}  # what a task draws with none of the keys below


@pytest.mark.parametrize(("task", "key"), [(task, key) for task in RUNS for key in keys_of(task)])
def test_every_key_changes_the_images_and_is_recorded_or_is_refused(task, key, sample, tmp_path):
    base = [*["compare"] * (task == "compare"), *BASE, *RUNS[task]]
    if task not in BASES:
        BASES[task] = sample(*base, output=tmp_path / "base")
    before = BASES[task]
    assert before.code == 0, before.err
    if (task, key) in REFUSED:
        value, message = REFUSED[task, key]
        done = sample(*base, f"{key}={value}")
        assert done.code == 2
        assert message in done.err
        assert not (tmp_path / "out").exists()
        return
    value, *beside = OTHERS.get(key) or SHOWN.get(key, MEANS.get(key))[:1]
    done = sample(*({word.partition("=")[0]: word for word in [*base, *beside, f"{key}={value}"]}.values()))
    assert done.code == 0, done.err
    changed = differ(before.pixels, done.pixels)
    assert changed == (key in OTHERS)
    assert (before.described != done.described) == changed
    assert {*done.files} - {*before.files} >= {*SHOWN.get(key, [])[1:]}


# The hyperparameters of each sampler: other values, and the words that they need beside them.
HYPERPARAMETERS = {
    "ddpm": {"variance": ["fixed_large"], "noise": ["brownian"]},
    "ddim": {"eta": ["0.5"], "noise": ["brownian", "sampler.eta=0.5"]},
    "euler": {
        "churn": ["10"],
        "churn_min": ["1", "sampler.churn=10"],
        "churn_max": ["1", "sampler.churn=10"],
        "noise_scale": ["1.5", "sampler.churn=10"],
    },
    "heun": {
        "churn": ["10"],
        "churn_min": ["1", "sampler.churn=10"],
        "churn_max": ["1", "sampler.churn=10"],
        "noise_scale": ["1.5", "sampler.churn=10"],
    },
    "dpm_solver_pp": {
        "order": ["1"],
        "stochastic": ["true"],
        "noise": ["brownian", "sampler.stochastic=true"],
    },
    "unipc": {"order": ["1"]},
}


def test_every_hyperparameter_is_tried():
    for name in groups_of("sample")["sampler"].choices:
        assert {*choice("sampler", name)} == {"_target_", "steps", "times", *HYPERPARAMETERS[name]}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in HYPERPARAMETERS.items() for key in keys])
def test_every_hyperparameter_of_a_sampler_changes_the_images_and_is_recorded(name, key, sample, tmp_path):
    value, *beside = HYPERPARAMETERS[name][key]
    base = ["ckpt={root}/model.ckpt", "n=2", f"sampler={name}", "sampler.steps=5", *beside]
    before, done = sample(*base, output=tmp_path / "base"), sample(*base, f"sampler.{key}={value}")
    changed = differ(before.pixels, done.pixels)
    assert changed
    assert before.described["sampler"][key] != done.described["sampler"][key]


NO_EFFECT = [
    (["ckpt={root}/model.ckpt", "guidance.scale=2"], "guidance.scale has no effect: guidance needs a class"),
    (["ckpt={root}/model.ckpt", "guidance=cfg"], "guidance has no effect"),
    (["compare", "ckpt={root}/labels.ckpt", "guidance.scale=2"], "set y=..., for a model trained with"),
    (["ckpt={root}/labels.ckpt", "y=one", "guidance=cfg", "guidance.rescale=0.5"], "guidance.scale=1 is no guidance"),
    (["ckpt={root}/labels.ckpt", "y=one", "guidance.of=sigma"], "guidance.of has no effect: guidance.interval holds"),
    (
        ["ckpt={root}/labels.ckpt", "y=one", "guidance.interval=[0,0.5]"],
        "none of the sampler's times, t=20 to 5",
    ),
    (["ckpt={root}/model.ckpt", "sampler=heun", "sampler.noise_scale=1.1"], "without sampler.churn=... no noise"),
    (["ckpt={root}/model.ckpt", "sampler=euler", "sampler.churn_max=3"], "sampler.churn_max has no effect"),
    (["ckpt={root}/model.ckpt", "task=inpaint", "task.resamples=1", "task.jump=3"], "task.jump has no effect"),
    (["compare", "ckpt={root}/model.ckpt", "y=1"], "trained without classes"),
    (["compare", "ckpt={root}/model.ckpt", "steps=[5,5]"], "steps=[5,5]: expected at least one, and"),
    (["compare", "ckpt={root}/model.ckpt", "samplers=[]"], "samplers=[]: expected at least one"),
    (["compare", "ckpt={root}/model.ckpt", "samplers=[dim]"], "did you mean ddim?"),
    (
        ["compare", "ckpt={root}/model.ckpt", "samplers=[ddim,ddpm]", "steps=[21]"],
        "[21]: none",
    ),
    (["compare", "ckpt={root}/model.ckpt", "task.image=x"], "no such key in this choice of task; task=img2img or"),
    (["ckpt={root}/model.ckpt", "given=[]"], "given: no such key"),
]


@pytest.mark.parametrize(
    ("overrides", "message"), NO_EFFECT, ids=lambda value: "" if isinstance(value, str) else value[-1]
)
def test_what_has_no_effect_is_refused_before_anything_is_written(overrides, message, sample, root, tmp_path):
    pictures = [f"task.image={root}/picture0.png", f"task.mask={root}/mask0.png"]
    done = sample(*overrides, *(pictures if "task=inpaint" in overrides else []))
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_what_has_no_effect_is_not_recorded(sample):
    ours = sample("ckpt={root}/model.ckpt", "n=1", "sampler=euler", "sampler.steps=2").described
    assert "guidance" not in ours
    assert {*ours["sampler"]} == {"class", "steps", "times", "churn"}
    assert ours["y"] is ours["classes"] is None


def test_samples_tell_what_they_are_of(sample):
    ours = sample("ckpt={root}/labels.ckpt", "n=2", "y=[three,1]", "weights=raw", "seed=7").described
    assert (ours["format"], ours["y"], ours["classes"]) == (1, [3, 1], ["three", "one"])
    assert (ours["weights"], ours["seed"], ours["n"]) == ("raw", 7, 2)
    assert ours["guidance"]["interval"] == [0, "inf"]  # of JSON, and no word of Python's


def test_parts_are_named_by_class(sample):
    ours = sample("ckpt={root}/labels.ckpt", "n=1", "y=0").described
    names = [ours[part].pop("class") for part in ("task", "sampler", "clipping", "guidance")]
    assert names == ["Generate", "DDIM", "Static", "ClassifierFree"]
    assert "_target_" not in str(ours)


def test_samples_of_another_image_under_the_same_name_are_rejected(sample, root, tmp_path):
    image = tmp_path / "image.png"
    overrides = ["ckpt={root}/model.ckpt", "task=img2img", f"task.image={image}", "n=1"]
    for picture, code in ("picture0", 0), ("picture0", 0), ("picture1", 2):
        shutil.copy(root / f"{picture}.png", image)
        done = sample(*overrides)
        assert done.code == code
    assert "holds samples of another task.image_sha256 (" in done.err


def test_a_comparison_tells_what_it_is_of(sample):
    ours = sample("compare", "ckpt={root}/labels.ckpt", "y=two", "n=1", *RUNS["compare"]).described
    assert {*ours["samplers"]} == {"ddim", "unipc"}
    assert ours["samplers"]["ddim"]["steps"] == [2, 3]
    assert (ours["y"], ours["n"], ours["guidance"]["scale"]) == ([2], 1, 3)
    assert "sampler" not in ours


def test_a_failed_cell_is_reported(sample, monkeypatch):
    rows = []
    monkeypatch.setattr(plots, "draw_table", lambda table, *names: rows.append(table) or Figure())
    overrides = ["compare", "ckpt={root}/model.ckpt", "n=1", "samplers=[ddim,heun]", "steps=[21]"]
    sample(*overrides)
    assert rows[0]["ddim"] == [(None, "not possible")]
    assert rows[0]["heun"][0][0] is not None


@pytest.mark.parametrize("sampler", groups_of("sample")["sampler"].choices)
def test_a_default_number_of_steps_is_at_most_that_of_the_schedule(sampler, sample):
    ours = sample("ckpt={root}/model.ckpt", "n=1", f"sampler={sampler}").described
    assert ours["sampler"]["steps"] in (None, 10, 20)


def test_a_list_of_times_has_its_own_number_of_steps(sample):
    done = sample("ckpt={root}/model.ckpt", "n=1", "sampler=ddim", "sampler.times=[20,7,0]")
    assert done.code == 0, done.err
    assert done.described["sampler"]["times"] == [20, 7, 0]


def test_the_grid_has_a_row_a_class_and_every_image(sample, tmp_path):
    sample("ckpt={root}/labels.ckpt", "n=5", "y=[one,two,three]")
    grid = np.asarray(Image.open(tmp_path / "out" / "grid.png"))
    assert grid.shape[0] == 3 * 58
    cells = [grid[58 * row + 1 : 58 * row + 57, -57:-1] for row in range(3)]  # of the second column
    assert [len({*cell.flatten().tolist()}) > 1 for cell in cells] == [True, True, False]


# The folder


def test_samples_lie_in_a_folder_of_their_own(sample, tmp_path):
    done = sample("ckpt={root}/model.ckpt", "n=11", "keep=2", "npz=true")
    assert done.files == ["grid.png", "images", "samples.json", "samples.npz", "states.gif", "strip.png"]
    assert sorted(file.name for file in (tmp_path / "out" / "images").iterdir()) == [f"{i:06d}.png" for i in range(11)]


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"seed": 0}, "holds samples of an earlier version"),
        ({"format": 2, "seed": 0}, "holds samples of a later version"),
        ({"format": None}, "holds samples of a later version"),
    ],
)
def test_a_folder_of_another_format_is_refused_and_stays_as_it_was(described, message, sample, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "samples.json").write_text(json.dumps(described))
    (tmp_path / "out" / "000000.png").touch()
    done = sample("ckpt={root}/model.ckpt", "n=2")
    assert done.code == 2
    assert message in done.err
    assert "choose another output=" in done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000.png", "samples.json"]
    assert json.loads((tmp_path / "out" / "samples.json").read_text()) == described


def test_what_a_killed_process_left_is_not_among_the_images(sample, tmp_path):
    sample("ckpt={root}/model.ckpt", "n=1")
    (tmp_path / "out" / "images" / ".000001.png.99999.tmp").write_bytes(b"half")
    sample("ckpt={root}/model.ckpt", "n=2")
    assert sorted(file.name for file in (tmp_path / "out" / "images").iterdir()) == ["000000.png", "000001.png"]


def test_an_array_of_all_images_grows_with_them(sample, tmp_path):
    sample("ckpt={root}/model.ckpt", "n=1", "npz=true")
    sample("ckpt={root}/model.ckpt", "n=3")
    assert len(np.load(tmp_path / "out" / "samples.npz")["arr_0"]) == 3


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(sample, tmp_path, monkeypatch):
    write, written = images.write_png, []

    def full(path, image):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        return write(path, image)

    with monkeypatch.context() as patch:
        patch.setattr(images, "write_png", full)
        done = sample("ckpt={root}/model.ckpt", "n=4")
    assert done.code == 2
    assert [line for line in done.err.splitlines() if "step/s" not in line] == [
        f"error: {tmp_path / 'out'}: cannot be written (No space left on device): choose another output=, or fix it "
        "and repeat the command, which resumes from the existing samples"
    ]
    assert len([*(tmp_path / "out" / "images").iterdir()]) == 2
    assert len(sample("ckpt={root}/model.ckpt", "n=4").pixels) == 4


def test_a_damaged_image_is_named(sample, tmp_path):
    sample("ckpt={root}/model.ckpt", "n=1")
    (tmp_path / "out" / "images" / "000000.png").write_bytes(b"")
    done = sample("ckpt={root}/model.ckpt", "n=2")
    assert done.code == 2
    assert "000000.png: not a readable picture; remove it" in done.err


# The states on the way


def shown(folder):
    with Image.open(folder / "states.gif") as gif:
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(gif)]
    return np.asarray(Image.open(folder / "strip.png")), frames


def test_states_are_shown_of_the_same_images_in_batches_of_any_size(sample, tmp_path):
    overrides = ["ckpt={root}/model.ckpt", "n=20", "keep=all"]
    sample(*overrides, output=tmp_path / "one")
    sample(*overrides, "batch_size=3", output=tmp_path / "two")
    (strip, frames), (other, others) = (shown(tmp_path / name) for name in ("one", "two"))
    assert strip.shape == (8 * 58, 5 * 58)  # 8 images, x_T and the states after 4 steps
    assert len(frames) == 5
    assert frames[0].shape == (4 * 58, 5 * 58)  # 20 images
    assert abs(strip.astype(int) - other).max() <= 1
    assert all(abs(one.astype(int) - two).max() <= 8 for one, two in zip(frames, others, strict=True))  # 256 colours


def test_states_are_shown_of_images_that_are_there_already(sample, tmp_path):
    done = sample("ckpt={root}/model.ckpt", "n=2")
    assert "strip.png" not in done.files
    again = sample("ckpt={root}/model.ckpt", "n=2", "keep=all")
    assert {"strip.png", "states.gif"} <= {*again.files}
    assert not differ(done.pixels, again.pixels, by=0)


def test_only_the_states_that_are_shown_are_kept(sample, monkeypatch):
    """Of 101 states of 70 images no more than 8 for the strip and 60 for the GIF, which shows 64 images."""
    kept, draw = [], LitDiffusion.sample_batches

    def watched(model, index, **options):
        for part, states in draw(model, index, **options):
            kept.append((len(part), len(states)))
            yield part, states

    monkeypatch.setattr(LitDiffusion, "sample_batches", watched)
    overrides = ["ckpt={root}/model.ckpt", "n=70", "keep=all", "sampler=euler", "sampler.steps=100", "batch_size=40"]
    assert sample(*overrides).code == 0
    assert [images for images, _ in kept] == [40, 24, 6]
    assert all(60 <= states <= 68 for _, states in kept[:2])
    assert kept[2][1] == 1
