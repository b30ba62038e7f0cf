"""The command line: every mistake is one line that says the way out, and paths are taken as the shell hands them."""

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hydra import compose as hydra_compose
from omegaconf import OmegaConf

from diffusion.commands import cli
from diffusion.config import folders
from diffusion.ground.errors import UserError
from diffusion.runs import compose as configs
from diffusion.runs.groups import groups_of, known_keys

ROOT = Path(__file__).resolve().parent.parent.parent
BELONGS = "belongs to training: the checkpoint fixes it"
MULTI = "several values need --multirun; a list is written [a,b]"
PRECISIONS = "expected auto, 32-true, 64-true, bf16-true, bf16-mixed or 16-mixed"
COMPOSED = {}
ODD_PATHS = [
    "runs/epoch=9-step=100.ckpt",
    "my runs/a,b",
    "{a}[b](c)",
    "größe/Übung 数.ckpt",
    "a'b\"c",
    "${x}",
    "a;b#c\\d%",
]


@pytest.fixture(autouse=True)
def _compose_once(monkeypatch):
    """Hydra takes a tenth of a second to compose the groups: the same choices are composed once for all tests."""

    def compose(command, overrides):
        key = (command, *overrides)
        if key not in COMPOSED:
            COMPOSED[key] = hydra_compose(command, overrides)
        return copy.deepcopy(COMPOSED[key])

    monkeypatch.setattr(configs, "hydra_compose", compose)


@pytest.fixture
def command(monkeypatch):
    """Puts a fake in the place of a command; returns the list of the configs it is given."""
    configs_seen = []

    def put(name, run=lambda config: Path("runs/here")):
        module = ModuleType(f"diffusion.commands.{name}")
        module.run = lambda config: (configs_seen.append(config), run(config))[1]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return configs_seen

    return put


def script(name, *words, **environment):
    return subprocess.run(
        [sys.executable, ROOT / f"{name}.py", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


BAD = [
    ("train", "schedule=linaer", "schedule=linaer: no such schedule; choose one of *; did you mean linear?"),
    ("train", "schedule=", "schedule=: no such schedule; choose one of *"),
    ("train", "schedule=table", "schedule.betas is missing: say schedule.betas=..."),
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
    ("sample", "ckpt=x task=inpaint task.image=a.png", "task.mask is missing: say task.mask=..."),
    ("sample", "ckpt=x task=img2img task.image=a,b=c.png task.t=-5", "task.t=-5: expected a number above 0, or null"),
    ("sample", "ckpt=x task=img2img task.strength=1", "task.strength: no such key*"),
    ("sample", "ckpt=x task=compare", "task=compare: compare is a command: python compare.py"),
    ("compare", "ckpt=x steps=10", "steps=10: expected a list such as [a,b], each *"),
    ("sample", "ckpt=x sampler=ddpm sampler.eta=1", "*this choice of sampler; sampler=ddim has it"),
    ("train", "zzz=1", "zzz: no such key; --help lists them"),
    ("train", "hydra.run.dir=x", "hydra.run.dir=x: Hydra only composes the config here; say run.dir= for the folder *"),
    ("train", "experiment.x=1", "experiment.x: no such key; *"),
    ("train", "schedule._target_=os.system", "schedule._target_: no such key*"),
    ("train", "seed.x=1", "seed.x: no such key*"),
    ("train", "+foo=1", "+foo=1: keys are neither added nor deleted (+, ++, ~); say foo=1"),
    ("train", "++seed=1", "++seed=1: keys are neither added nor deleted (+, ++, ~); say seed=1"),
    ("train", "~logger", "~logger: keys are neither added nor deleted (+, ++, ~); say logger=value"),
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
    ("train", "dataset=image_folder", "dataset.path is missing: say dataset.path=..."),
    ("train", "dataset=image_folder dataset.range=full", "*: expected container, auto, or two numbers [low,high]*"),
    ("train", "dataset=image_folder dataset.range=[9,2]", "*: expected container, auto, or two numbers [low,high]*"),
    ("train", "ckpt=x", "ckpt=x: belongs to *sample.py*"),
    ("train", "n=3", "n=3: belongs to *sample.py*"),
    ("train", "metric=bpd", "metric=bpd: belongs to *evaluate.py"),
    ("sample", "ckpt=x metric.n=3", "metric.n=3: belongs to *evaluate.py*"),
    ("evaluate", "", "ckpt is missing: say ckpt=..."),
    ("evaluate", "ckpt=x metric=bdp", "metric=bdp: no such metric; choose one of bpd*"),
    ("evaluate", "ckpt=x steps=3", "steps=3: belongs to *compare.py; did you mean metric.steps*"),
    ("evaluate", "ckpt=x metric.n=0", "metric.n=0: expected a whole number, 1 or more, or null"),
    ("evaluate", "ckpt=x schedule=cosine", f"schedule=cosine: {BELONGS}"),
    ("evaluate", "ckpt=x to=onnx", "to=onnx: belongs to *convert.py"),
    ("sample", "ckpt=x from=y", "from=y: belongs to *convert.py"),
    ("convert", "ckpt=x to=onxn", "to=onxn: expected diffusers, onnx or safetensors, or null"),
    ("convert", "form=x", "form: no such key; did you mean from?"),
    ("convert", "from=", "from=: expected a path, or null"),
    ("convert", "ckpt=x to=onnx weigths=raw", "weigths: no such key; did you mean weights?"),
    ("convert", "ckpt=x prediction=v", f"prediction=v: {BELONGS}"),
    ("evaluate", "ckpt=x dataset=mnist", "dataset=mnist: dataset is a section; set one of its keys (dataset.path)"),
    ("train", "--foo", "--foo: no such option; choose one of --help, --multirun, --print, *"),
    ("train", "--max_steps=3", "--max_steps=3: no such option; *"),
    ("train", "seed=1 seed=2", "seed is given twice: say it once"),
    ("train", "logger=csv logger=none", "logger is given twice: say it once"),
    ("sample", "", "ckpt is missing: say ckpt=..."),
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


@pytest.mark.parametrize(("name", "line", "expected"), BAD, ids=[f"{bad[0]} {bad[1]}" for bad in BAD])
def test_a_mistake_is_one_line(name, line, expected, command, capsys):
    seen = command(name)
    # One word may hold a space ({T: 5}); several words are told apart by their "=".
    words = line.split() if line.count("=") > 1 and ": " not in line else [line] if line else []
    assert cli.main(name, words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert seen == []
    assert err.count("\n") == 1
    pieces = f"error: {expected}\n".split("*")
    assert err.startswith(pieces[0])
    assert err.endswith(pieces[-1])
    assert all(piece in err for piece in pieces)


@pytest.mark.parametrize("path", ODD_PATHS)
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("sample", ["ckpt", "output"]),
        ("evaluate", ["ckpt", "output", "dataset.path"]),
        ("convert", ["from", "ckpt", "output"]),
        ("train", ["resume", "dataset.path", "run.root", "run.dir", "run.name"]),
    ],
)
def test_a_path_is_what_the_shell_handed_over(name, keys, path, command):
    seen = command(name)
    assert cli.main(name, [f"{key}={path}" for key in keys]) == 0
    for config in seen[0], OmegaConf.create(OmegaConf.to_yaml(seen[0])):  # as given, and as saved and read back
        assert [OmegaConf.select(config, key) for key in keys] == [path] * len(keys)


def test_the_path_is_the_last_line(command, capsys, monkeypatch):
    seen = command("train", lambda config: print("training") or Path("runs/digits/a"))
    assert cli.main("train", ["dataset=digits"]) == 0
    assert capsys.readouterr().out.splitlines() == ["training", "runs/digits/a"]
    assert seen[0].dataset.name == "digits"
    monkeypatch.setenv("LOCAL_RANK", "1")  # only the first of several processes says it
    assert cli.main("train", ["dataset=digits"]) == 0
    assert capsys.readouterr().out.splitlines() == ["training"]


def raising(error, cause=None):
    def run(config):
        raise error from cause

    return run


def test_a_users_mistake_inside_a_command(command, capsys, monkeypatch):
    command("train", raising(RuntimeError("wrapped"), UserError("28 does not divide\nby 8")))
    assert cli.main("train", []) == 2
    assert capsys.readouterr().err == "error: 28 does not divide by 8\n"
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert cli.main("train", []) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback(command):
    command("train", raising(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main("train", [])


def test_ctrl_c(command, capsys):
    command("train", raising(KeyboardInterrupt()))
    assert cli.main("train", []) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("name", list(folders.commands()))
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_group_choice_and_stable_key(name, option, capsys):
    assert cli.main(name, ["seed=nonsense", option]) == 0
    page = capsys.readouterr().out
    for group in groups_of(name).values():
        if len(group.choices) == 1:  # its keys are among the others
            continue
        [line] = [line for line in page.splitlines() if line.split()[:1] == [group.key] and "=" not in line]
        assert [choice.rstrip("*,") for choice in line.split()[1:]] == group.choices
    section = page.partition("keys:")[2].partition("groups")[0].partition("options")[0]
    keys = [line.split()[0] for line in section.splitlines() if line and not line.startswith("   ")]
    composed = known_keys(configs.compose(name), groups_of(name))
    assert set(keys) <= set(composed)
    assert keys
    assert max(map(len, page.splitlines())) <= 120


@pytest.mark.parametrize("name", list(folders.commands()))
def test_print_shows_what_compose_gives(name, capsys, command):
    seen = command(name)
    word = "output=x" if name in ("convert", "report") else "seed=5"
    assert cli.main(name, ["--print", word]) == 0
    assert OmegaConf.create(capsys.readouterr().out) == configs.compose(name, [word])
    assert seen == []


@pytest.mark.parametrize("name", list(folders.commands()))
@pytest.mark.parametrize("word", ["--help", "--print", "zzz=1"])
def test_answers_come_before_anything_heavy(name, word):
    code = (
        "import sys\nfrom diffusion.commands import cli\n"
        f"cli.main({name!r}, [{word!r}])\n"
        "print('heavy:', sorted({'torch', 'lightning', 'wandb', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_the_scripts_work_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = script("train", "seed=x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: seed=x: expected a whole number, 0 or more\n"
    assert all("ckpt=RUN_FOLDER" in script(name, "--help").stdout for name in ("sample", "evaluate"))
    assert list(tmp_path.iterdir()) == []


JOB = """\
import sys
import time
from diffusion.commands.cli import main
from pathlib import Path
from types import ModuleType

module = sys.modules["diffusion.commands.train"] = ModuleType("train")

def run(config):
    if config.seed == 2:
        raise SystemExit(3)
    if config.seed == 9:
        try:
            print("training", flush=True)  # inside: the signal may come as soon as it is read
            time.sleep(30)
        finally:
            time.sleep(0.5)
            print("checkpoint written")
    print("training", flush=True)
    return Path(config.run.root, f"{config.seed} {config.optimizer.betas[0]} {config.logger.wandb.project}")

module.run = run
sys.exit(main("train", sys.argv[1:]))
"""


def sweep(tmp_path, *words):
    job = tmp_path / "job.py"
    job.write_text(JOB)
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, job, *words], env=path, capture_output=True, text=True, timeout=60)


def test_multirun_is_every_combination_in_fresh_processes(tmp_path):
    done = sweep(
        tmp_path, "-m", "seed=0,1", "run.root=a,b", "optimizer.betas=[0.5,0.9],[0,0.9]", "logger.wandb.project='x y'"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-4:] == [f"a,b/{seed} {beta} x y" for seed in (0, 1) for beta in (0.5, 0.0)]
    assert done.stdout.count("training") == 4


def test_multirun_goes_on_after_a_failure_and_says_so(tmp_path):
    done = sweep(tmp_path, "--multirun", "seed=range(1,4)")
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines()[-3:]] == [
        "runs/1 0.9 diffusion",
        "failed, exit code 3",
        "runs/3 0.9 diffusion",
    ]


def test_ctrl_c_ends_a_multirun_after_its_job_has_saved(tmp_path):
    job = tmp_path / "job.py"
    job.write_text(JOB)
    with subprocess.Popen(
        [sys.executable, job, "-m", "seed=9,1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while process.stdout.readline() != "training\n":
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "checkpoint written\n", "interrupted\n" * 2)


@pytest.mark.parametrize("word", ["seed=1,x", "schedule=linear,linaer", "seed=interval(1,2)", "seed=1,(", "zzz=1,2"])
def test_multirun_checks_every_job_before_the_first(word, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_run_job", lambda words: pytest.fail("a job was started"))
    assert cli.main("train", ["-m", word]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_reader_that_has_had_enough_sees_no_traceback():
    line = f"{sys.executable} train.py --help | head -1"
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("Train a diffusion model.\n", "")
