"""Mistakes of a user, by the commands themselves: one line, exit code 2, no traceback, nothing left over."""

import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.commands import command, tiny

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("compose_once")]
ODD = "epoch=9, größe 数"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of things to stumble over, a trained run among them."""
    root = tmp_path_factory.mktemp("root")
    (root / "empty").mkdir()
    (root / "notes").mkdir()
    (root / "notes" / "a.txt").write_text("no picture")
    (root / "broken").mkdir()
    for k in range(3):
        (root / "broken" / f"{k}.png").write_bytes(b"")
    (root / "floats").mkdir()
    for k in range(3):
        Image.fromarray(np.eye(8, dtype=np.float32) / (k + 1)).save(root / "floats" / f"{k}.tif")
    (root / "file").write_text("a file")
    (root / "run without checkpoints" / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, root / "other.ckpt")
    torch.save(torch.nn.Linear(1, 1), root / "module.ckpt")
    (root / f"{ODD}.ckpt").write_bytes(b"nothing")
    return root


@pytest.fixture(scope="module")
def run(root):
    from diffusion.commands import cli

    assert cli.main("train", tiny("trainer.max_steps=1", "callbacks.preview.n=0", f"run.dir={root / 'run'}")) == 0
    return root / "run"


def train(*given):
    return ["train", *tiny("trainer.max_steps=1", "run.root={root}/new", *given)]


def folder(*given):
    return ["train", "dataset=image_folder", "network=unet_tiny", "logger=none", "dataset.size=8", *given]


BELONGS = "belongs to training: the checkpoint fixes it"
MULTI = "several values need --multirun; a list is written [a,b]"
PRECISIONS = "expected auto, 32-true, 64-true, bf16-true, bf16-mixed or 16-mixed"

# Command, its overrides, the message; * stands for anything.
OVERRIDES = [
    ("train", "schedule=linaer", "schedule=linaer: no such schedule; choose one of *; did you mean linear?"),
    ("train", "schedule=", "schedule=: no such schedule; choose one of *"),
    ("train", "schedule=table", "schedule.betas is missing: set schedule.betas=..."),
    ("train", "schedule=table schedule.betas=0.1", "schedule.betas=0.1: expected a list such as [a,b], each *"),
    ("train", "schedule=null", "schedule=null: no such schedule; choose one of *"),
    ("train", "schedule={T: 5}", "schedule={T: 5}: no such schedule; choose one of *"),
    ("train", "dataset=fashion-mnist", "*; did you mean fashion_mnist?"),
    (
        "train",
        "callbacks.preview.sampler=dim",
        "callbacks.preview.sampler=dim: no such sampler; choose one of *; did you mean ddim?",
    ),
    ("train", "sampler@callbacks.preview.sampler=dim", "callbacks.preview.sampler=dim: no such sampler; *"),
    ("train", "debug=fats", "debug=fats: no such debug; choose one of fast, overfit; did you mean fast?"),
    ("train", "shedule=linear", "shedule: no such key; did you mean schedule?"),
    ("train", "trainer.max_step=1", "trainer.max_step: no such key; did you mean trainer.max_steps?"),
    ("train", "max_steps=1", "max_steps: no such key; did you mean trainer.max_steps?"),
    ("train", "training.max_minutes=1", "training.max_minutes: no such key; did you mean trainer.max_minutes?"),
    ("train", "batch_sizes=1", "batch_sizes: no such key; did you mean dataset.batch_size?"),
    ("train", "rum.name=1", "rum.name: no such key; did you mean *run.name*"),
    ("train", "sampler.eta=1", "sampler.eta: no such key in this choice of sampler; sampler=ddim has it"),
    (
        "train",
        "callbacks.preview.sampler.variance=x",
        "*this choice of callbacks.preview.sampler; callbacks.preview.sampler=ddpm has it",
    ),
    ("sample", "ckpt=x task=inpant", "task=inpant: no such task; choose one of *; did you mean inpaint?"),
    ("sample", "ckpt=x task=inpaint task.image=a.png", "task.mask is missing: set task.mask=..."),
    ("sample", "ckpt=x task=img2img task.image=a,b=c.png task.t=-5", "task.t=-5: expected a number above 0, or null"),
    ("sample", "ckpt=x task=img2img task.strength=1", "task.strength: no such key*"),
    ("sample", "ckpt=x task=compare", "task=compare: compare is a command: python compare.py"),
    ("compare", "ckpt=x steps=10", "steps=10: expected a list such as [a,b], each *"),
    ("sample", "ckpt=x sampler=ddpm sampler.eta=1", "*this choice of sampler; sampler=ddim has it"),
    ("train", "zzz=1", "zzz: no such key; --help lists them"),
    ("train", "hydra.run.dir=x", "hydra.run.dir=x: Hydra only composes the config here; set run.dir= for the folder *"),
    ("train", "experiment.x=1", "experiment.x: no such key; *"),
    ("train", "schedule._target_=os.system", "schedule._target_: no such key*"),
    ("train", "seed.x=1", "seed.x: no such key*"),
    ("train", "+foo=1", "+foo=1: keys are neither added nor deleted (+, ++, ~); use foo=1"),
    ("train", "++seed=1", "++seed=1: keys are neither added nor deleted (+, ++, ~); use seed=1"),
    ("train", "~logger", "~logger: keys are neither added nor deleted (+, ++, ~); use logger=value"),
    ("train", "seed", "seed: expected key=value, without spaces around '='"),
    ("train", "=1", "=1: expected key=value, without spaces around '='"),
    ("train", "seed=a=b", "seed=a=b: cannot be read; *"),
    ("train", "seed=(", "seed=(: cannot be read; *"),
    ("train", "seed=1,2", f"seed=1,2: {MULTI}"),
    ("train", "seed=range(1,4)", f"seed=range(1,4): {MULTI}"),
    ("train", "schedule=linear,cosine", f"schedule=linear,cosine: {MULTI}"),
    ("train", "seed=-1", "seed=-1: expected a whole number, 0 or more"),
    ("train", "seed=", "seed=: expected a whole number, 0 or more"),
    ("train", "seed=null", "seed=null: expected a whole number, 0 or more"),
    ("train", "seed=true", "seed=true: expected a whole number, 0 or more"),
    *(("train", f"kernels={word}", f"kernels={word}: expected auto or off") for word in ("true", "false", "on")),
    ("train", "trainer.max_steps=abc", "trainer.max_steps=abc: expected a whole number, 1 or more, or null"),
    ("train", "trainer.max_steps=1.5", "trainer.max_steps=1.5: expected a whole number, 1 or more, or null"),
    ("train", "trainer.max_steps=0", "trainer.max_steps=0: expected a whole number, 1 or more, or null"),
    ("train", "trainer.max_steps={a:1}", "trainer.max_steps={a:1}: expected a whole number, 1 or more, or null"),
    ("train", "trainer.max_minutes=abc", "trainer.max_minutes=abc: expected a number above 0, or null"),
    ("train", "optimizer.lr=nan", "optimizer.lr=nan: expected a number above 0"),
    ("train", "ema.decay=high", "ema.decay=high: expected a number, 0 or more and below 1"),
    ("train", "optimizer.betas=0.9", "optimizer.betas=0.9: expected a list of two numbers, each 0 or more and below 1"),
    (
        "train",
        "optimizer.betas=[0.9,x]",
        "optimizer.betas=[0.9,x]: expected a list of two numbers, each 0 or more and below 1",
    ),
    (
        "train",
        "optimizer.betas=[1,2,3]",
        "optimizer.betas=[1,2,3]: expected a list of two numbers, each 0 or more and below 1",
    ),
    (
        "train",
        "optimizer.betas=[2,0.9]",
        "optimizer.betas=[2,0.9]: expected a list of two numbers, each 0 or more and below 1",
    ),
    (
        "train",
        "optimizer.betas=[-1,0.9]",
        "optimizer.betas=[-1,0.9]: expected a list of two numbers, each 0 or more and below 1",
    ),
    (
        "train",
        "optimizer.betas=[0.9]",
        "optimizer.betas=[0.9]: expected a list of two numbers, each 0 or more and below 1",
    ),
    (
        "train",
        "network.widths=[0]",
        "network.widths=[0]: expected a list such as [a,b], each a whole number, 1 or more",
    ),
    (
        "train",
        "network.widths=[-8,8]",
        "network.widths=[-8,8]: expected a list such as [a,b], each a whole number, 1 or more",
    ),
    ("train", "network.dropout=1.5", "network.dropout=1.5: expected a number, 0 to 1"),
    ("train", "strategy.devices=many", "strategy.devices=many: expected auto, a count, or a list such as [0,1]"),
    ("train", "trainer.precision=[1]", f"trainer.precision=[1]: {PRECISIONS}"),
    ("train", "trainer.precision=fp16", f"trainer.precision=fp16: {PRECISIONS}"),
    ("train", "trainer.precision=16-true", f"trainer.precision=16-true: {PRECISIONS}"),
    ("train", "trainer.precision=transformer-engine", f"trainer.precision=transformer-engine: {PRECISIONS}"),
    ("train", "trainer.max_steps=${seed}", "trainer.max_steps=${seed}: expected a whole number, 1 or more, or null"),
    ("train", "logger.wandb.project=${nothing}", "the config cannot be composed: *'nothing'*"),
    ("train", "trainer={max_steps: 3}", "trainer={max_steps: 3}: no such trainer; choose one of default"),
    ("train", "ema.sigma_rel=[0.1]", "ema.sigma_rel: no such key in this choice of ema; ema=power has it"),
    ("train", "ema=half_life ema.half_life=[0]", "*: expected a list such as [a,b], each a whole number, 1 or more"),
    ("train", "ema=power ema.decay=0", "ema.decay: no such key in this choice of ema; ema=decay has it"),
    ("train", "ema=0.9", "ema=0.9: no such ema; choose one of decay, half_life, power"),
    ("train", "run=runs", "run=runs: run is a section; set one of its keys (run.root, run.name, run.dir)"),
    ("train", "run.dir=", "run.dir=: expected a path, or null"),
    ("train", "run.name=", "run.name=: expected a name, or null"),
    ("train", "run.root=null", "run.root=null: expected a path"),
    ("train", "dataset=image_folder", "dataset.path is missing: set dataset.path=..."),
    ("train", "dataset=image_folder dataset.range=full", "*: expected container, auto, or two numbers [low,high]*"),
    ("train", "dataset=image_folder dataset.range=[9,2]", "*: expected container, auto, or two numbers [low,high]*"),
    ("train", "ckpt=x", "ckpt=x: belongs to *sample.py*"),
    ("train", "n=3", "n=3: belongs to *sample.py*"),
    ("train", "metric=bpd", "metric=bpd: belongs to *evaluate.py"),
    ("sample", "ckpt=x metric.bpd.n=3", "metric.bpd.n=3: belongs to *evaluate.py*"),
    ("evaluate", "", "ckpt is missing: set ckpt=..."),
    ("evaluate", "ckpt=x metric=bdp", "metric=bdp: no such metric; choose one of bpd*"),
    ("evaluate", "ckpt=x steps=3", "steps=3: belongs to *compare.py; did you mean metric.bpd.steps*"),
    ("evaluate", "ckpt=x metric.bpd.n=0", "metric.bpd.n=0: expected a whole number, 1 or more, or null"),
    ("evaluate", "ckpt=x schedule=cosine", f"schedule=cosine: {BELONGS}"),
    ("evaluate", "ckpt=x to=onnx", "to=onnx: belongs to *convert.py"),
    ("sample", "ckpt=x from=y", "from=y: belongs to *convert.py"),
    ("convert", "ckpt=x to=onxn", "to=onxn: expected diffusers, onnx or safetensors, or null"),
    ("convert", "form=x", "form: no such key; did you mean from?"),
    ("convert", "from=", "from=: expected a path, or null"),
    ("convert", "ckpt=x to=onnx weigths=raw", "weigths: no such key; did you mean weights?"),
    ("convert", "ckpt=x prediction=v", f"prediction=v: {BELONGS}"),
    ("evaluate", "ckpt=x images=y", "ckpt is missing: set ckpt=..., or images=FOLDER and dataset=..."),
    ("train", "--foo", "--foo: no such option; choose one of --help, --multirun, --print, *"),
    ("train", "--max_steps=3", "--max_steps=3: no such option; *"),
    ("train", "seed=1 seed=2", "seed is given twice: give it once"),
    ("train", "logger=csv logger=none", "logger is given twice: give it once"),
    ("sample", "", "ckpt is missing: set ckpt=..."),
    ("sample", "runs/mnist/x", "runs/mnist/x: expected key=value, without spaces around '='"),
    ("sample", "ckpt=", "ckpt=: expected a path"),
    ("sample", "ckpt=x schedule.T=100", f"schedule.T=100: {BELONGS}"),
    ("sample", "ckpt=x schedule=cosine", f"schedule=cosine: {BELONGS}"),
    ("sample", "ckpt=x prediction=v", f"prediction=v: {BELONGS}"),
    ("sample", "ckpt=x network.channels=8", f"network.channels=8: {BELONGS}"),
    ("sample", "ckpt=x dataset.path=y", f"dataset.path=y: {BELONGS}"),
    ("sample", "ckpt=x overrides.sampler.steps=5", "overrides.sampler.steps: no such key; did you mean sampler.steps?"),
    ("sample", "ckpt=x sampler=dimm", "sampler=dimm: no such sampler; choose one of *; did you mean ddim?"),
    ("sample", "ckpt=x sampler.stepz=5", "sampler.stepz: no such key; did you mean sampler.steps?"),
    ("sample", "ckpt=x steps=5", "steps=5: belongs to *compare.py; did you mean sampler.steps?"),
    ("sample", "ckpt=x sampler.steps=0", "sampler.steps=0: expected a whole number, 1 or more, or null"),
    ("sample", "ckpt=x sampler.steps=all", "sampler.steps=all: expected a whole number, 1 or more, or null"),
    ("sample", "ckpt=x n=-4", "n=-4: expected a whole number, 1 or more, or null"),
    ("sample", "ckpt=x weights=-1", "weights=-1: expected ema, raw, the name of an average, or a width such as 0.08"),
    ("sample", "ckpt=x keep=every", "keep=every: expected a count, all, or every:k"),
    ("sample", "ckpt=x keep=0", "keep=0: expected a count, all, or every:k"),
    ("sample", "ckpt=x sampler.times=[x,0]", "sampler.times=[x,0]: expected a name such as trailing, or a list of *"),
    ("sample", "ckpt=x npz=maybe", "npz=maybe: expected true or false"),
]

OPTIONS = [
    (
        ["train", "-cn", "mine"],
        "-cn: not an option here; each command has one config*; use python NAME.py",
    ),
    (["train", "--config-path=x"], "--config-path=x: not an option here; --config-dir adds a folder"),
    (["train", "--hydra-help"], "--hydra-help: not an option here; --help shows the help of this program"),
    (["train", "--experimental-rerun=x"], "--experimental-rerun=x: not an option here; rerun=RUN_FOLDER repeats a run"),
    (["train", "hydra.run.dir=x"], "set run.dir= for the folder of one run, or run.root= for the folder of all runs"),
    (["train", "hydra.sweep.dir=x"], "each job of -m has its own folder in run.root="),
    (["train", "hydra/launcher=joblib"], "the jobs of -m run one after another"),
    (["train", "hydra.verbose=true"], "Hydra only composes the config here; --print shows it"),
    (["train", "+seed=3"], "+seed=3: keys are neither added nor deleted (+, ++, ~); use seed=3"),
    (["train", "++experiment=digits"], "use experiment=digits"),
    (["train", "~callbacks.preview"], "use callbacks.preview=null"),
    (["train", "~seed"], "use seed=value"),
    (["train", "--cfg", "hydra"], "--cfg hydra: Hydra only composes the config here; --cfg job shows it"),
    (["train", "--cfg"], "--cfg: expected a value; --cfg job"),
    (["train", "--package", "run"], "--package has no effect without --print"),
    (["train", "--cfg", "job", "--package", "rum"], "--package rum: no such section"),
    (["train", "--info", "plugins"], "--info plugins: expected defaults or searchpath; --print shows the config"),
    (["train", "-sc", "install=tcsh"], "expected install= and one of bash, zsh, fish"),
]

# The same with files and folders: {root} is a folder of them.
FILES = [
    (["sample", "ckpt={root}/missing"], "no such file or run folder"),
    (["sample", "ckpt={root}/{odd}"], "no such file or run folder"),
    (["sample", "ckpt={root}/{odd}.ckpt"], "{odd}.ckpt: not a readable checkpoint"),
    (["sample", "ckpt={root}/empty"], "expected a run folder that train.py wrote"),
    (["sample", "ckpt={root}/run without checkpoints"], "expected a run folder that train.py wrote"),
    (["sample", "ckpt={root}/run/best/last"], "no such file or run folder"),
    (["sample", "ckpt={root}/run", "guidance.scale=3"], "guidance needs a class: set y=..."),
    (["sample", "ckpt={root}/other.ckpt"], "not a checkpoint of this program"),
    (["sample", "ckpt={root}/module.ckpt"], "not a readable checkpoint"),
    (["sample", "ckpt={root}/file"], "not a readable checkpoint"),
    (["sample", "ckpt={root}/run", "weights=half_life_5"], "has ema, raw"),
    (["sample", "ckpt={root}/run", "accelerator=abacus"], "no such device here"),
    (["sample", "ckpt={root}/run", "sampler.steps=5000"], "sampler.steps=5000"),
    (["sample", "ckpt={root}/run", "keep=5000"], "keep=5000: expected 1 to 1001"),
    (["sample", "ckpt={root}/run", "sampler=ddim", "keep=every:52"], "keep=every:52: expected 1 to 51"),
    (["sample", "ckpt={root}/run", "sampler.variance=learned"], "this network predicts no variance; use fixed_small"),
    (["sample", "ckpt={root}/run", "y=3"], "trained without classes"),
    (["sample", "ckpt={root}/run", "output={root}/file"], "is a file: expected a folder"),
    (["sample", "ckpt={root}/run", "output={root}/file/below"], "cannot be written"),
    (["sample", "ckpt={root}/run", "output={root}/notes"], "not a folder of samples"),
    (train("resume={root}/missing"), "no such file or run folder"),
    (train("resume={root}/other.ckpt"), "not a checkpoint of this program"),
    (train("resume={root}/empty"), "expected a run folder"),
    (train("sampler.variance=learned"), "this network predicts no variance"),
    (
        train("callbacks.preview.sampler=ddpm", "callbacks.preview.sampler.variance=learned"),
        "this network predicts no variance",
    ),
    (train("resume=auto"), "which run? Set run.name="),
    (train("run.name=../x"), "run.name=../x: expected the name of a folder; use run.dir= for a path"),
    (train("run.name=a/b"), "run.name=a/b: expected the name of a folder"),
    (train("run.name=.."), "run.name=..: expected the name of a folder"),
    (train("resume=auto", "resume_mode=weights"), "from which checkpoint? Set resume=RUN"),
    (train("resume_mode=some"), "expected full or weights"),
    (train("rerun={root}/empty"), "no manifest.json"),
    (train("run.dir={root}/run"), "exists: resume=auto continues this run"),
    (train("run.dir={root}/notes"), "exists: resume=auto continues this run"),
    (train("run.dir={root}/file/below"), "cannot be written"),
    (
        train("schedule.T=20", "callbacks.preview.sampler.steps=50"),
        "error: callbacks.preview.sampler.steps=50: expected 1 to 20",
    ),
    (train("schedule.T=20", "sampler.steps=21"), "error: sampler.steps=21: expected 1 to 20"),
    (
        train("schedule.T=20", "callbacks.preview.sampler.times=[30,0]"),
        "error: callbacks.preview.sampler.times=[30.0, 0.0]: expected times",
    ),
    (train("strategy.accelerator=abacus"), "abacus"),
    (train("strategy=gpu"), "gpu"),
    (train("network.attention=[3]"), "3"),
    (train("network.patch=3"), "3"),
    (train("dataset.batch_size=5000"), "more than the 1500 training images"),
    (train("checkpoints.keep=0"), "checkpoints.keep=0: expected a whole number, 1 or more"),
    (train("checkpoints.every_n_minutes=0"), "expected a number above 0, or null"),
    (train("validate.every_n_minutes=0"), "expected a number above 0, or null"),
    (train("callbacks.preview.every_n_epochs=0"), "expected a whole number, 1 or more, or null"),
    (train("trainer.val_every_n_epochs=3"), "is now called validate.every_n_epochs; use validate.every_n_epochs=3"),
    (train("trainer.max_skipped=0"), "expected a whole number, 1 or more"),
    (folder("dataset.path={root}/missing"), "is not a folder"),
    (folder("dataset.path={root}/missing", "run.dir={root}/empty"), "is not a folder"),
    (folder("dataset.path={root}/empty"), "has no images: 0 files seen"),
    (folder("dataset.path={root}/notes"), "has no images: 1 files seen"),
    (folder("dataset.path={root}/broken", "dataset.cache={root}/cache"), "0 of 3 images can be read"),
    (folder("dataset.path={root}/broken", "dataset.cache={root}/file/x"), "cannot be kept in"),
    (folder("dataset.path={root}/floats", "dataset.cache={root}/cache"), "set dataset.range=auto or [low,high]"),
]


def overrides(line):
    """One override may hold a space ({T: 5}); several are told apart by their "="."""
    return line.split() if line.count("=") > 1 and ": " not in line else [line] if line else []


MISTAKES = [*(([name, *overrides(line)], message) for name, line, message in OVERRIDES), *OPTIONS, *FILES]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[" ".join(line[:1] + line[-2:]) for line, _ in MISTAKES])
def test_a_mistake_is_one_line(line, message, root, run, capsys):
    before = sorted(root.rglob("*"))
    fill = {"{root}": str(root), "{odd}": ODD}
    done = command(*(re.sub(r"{root}|{odd}", lambda found: fill[found[0]], word) for word in line), capsys=capsys)
    assert done.code == 2
    [error] = [error for error in done.err.splitlines() if error.startswith("error: ")]
    assert re.search(".*".join(map(re.escape, message.replace("{odd}", ODD).split("*"))), error), error
    assert "Traceback" not in done.err
    assert not (root / "new").exists()
    left = {path.relative_to(root).parts[0] for path in {*root.rglob("*")} - {*before}}
    assert left <= {"cache"}


def test_a_checkpoint_may_be_called_anything(run, tmp_path, capsys):
    path = tmp_path / ODD / f"{ODD}.ckpt"
    path.parent.mkdir()
    shutil.copy(run / "checkpoints" / "last.ckpt", path)
    done = command("sample", f"ckpt={path}", "n=2", "sampler.steps=2", f"output={tmp_path / 'out, ='}", capsys=capsys)
    assert done.code == 0, done.err
    assert len(list(done.folder.glob("images/*"))) == 2


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_damaged_description_of_samples_is_refused(run, tmp_path, text, capsys):
    (tmp_path / "samples.json").write_text(text)
    done = command("sample", f"ckpt={run}", f"output={tmp_path}", capsys=capsys)
    assert done.code == 2
    assert "samples.json: not a description of samples" in done.err


def test_samples_of_two_models_never_share_a_folder(run, tmp_path, capsys):
    ours = tmp_path / "run"
    shutil.copytree(run, ours)
    line = ["sample", f"ckpt={ours}", "weights=raw", "sampler.steps=2", f"output={tmp_path / 'out'}"]
    assert command(*line, "n=1", capsys=capsys).code == 0
    assert command(*line, "n=2", capsys=capsys).code == 0
    newest = (ours / "checkpoints" / "last.ckpt").resolve()
    contents = torch.load(newest, weights_only=True)
    next(iter(contents["state_dict"].values())).view(-1)[0] += 1  # the same file, trained on
    newest.unlink()
    for name in (newest, ours / "checkpoints" / "last.ckpt"):
        torch.save(contents, name)
    done = command(*line, "n=3", capsys=capsys)
    assert done.code == 2
    assert "holds samples of another weights_sha256" in done.err
    described = tmp_path / "out" / "samples.json"
    described.write_text(described.read_text().replace("weights_sha256", "other"))  # of before it was recorded
    done = command(*line, "n=3", capsys=capsys)
    assert done.code == 2
    assert "without a record of their weights_sha256" in done.err


def test_interrupted_sampling_goes_on_where_it_was(run, tmp_path, capsys, monkeypatch):
    from diffusion.ground import images

    line = ["sample", f"ckpt={run}", "sampler=ddim", "sampler.steps=2", "n=7", "batch_size=2", "npz=true"]
    whole = command(*line, f"output={tmp_path / 'whole'}", capsys=capsys).folder
    write, drawn = images.write_png, []

    def interrupted(path, image):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(path.name)
        return write(path, image)

    with monkeypatch.context() as patch:
        patch.setattr(images, "write_png", interrupted)
        assert command(*line, f"output={tmp_path / 'cut'}", capsys=capsys).code == 130
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut" / "images").iterdir()}
    assert len(kept) == 3
    cut = command(*line, f"output={tmp_path / 'cut'}", capsys=capsys).folder
    assert all((cut / "images" / name).stat().st_mtime_ns == stamp for name, stamp in kept.items())
    for k in range(7):
        one, two = (np.asarray(Image.open(made / "images" / f"{k:06d}.png")).astype(int) for made in (whole, cut))
        assert abs(one - two).max() <= 1  # matrix products of another batch size round differently
    stored = np.load(cut / "samples.npz")["arr_0"]
    assert (stored.shape, stored.dtype) == ((7, 8, 8, 1), np.uint8)
    assert np.array_equal(stored[6, ..., 0], np.asarray(Image.open(cut / "images" / "000006.png")))
