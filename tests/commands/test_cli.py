"""The command line: paths, exit codes, sweeps, help pages. Mistakes are in tests/test_mistakes.py."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import OmegaConf

from diffusion.commands import cli
from diffusion.config import conf_folders
from diffusion.ground.errors import UserError
from diffusion.runs import compose as configs
from diffusion.runs.groups import groups_of, known_keys

pytestmark = pytest.mark.usefixtures("compose_once")
ROOT = Path(__file__).resolve().parent.parent.parent
ODD_PATHS = [
    "runs/epoch=9-step=100.ckpt",
    "my runs/a,b",
    "{a}[b](c)",
    "größe/Übung 数.ckpt",
    "a'b\"c",
    "${x}",
    "a;b#c\\d%",
]


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


def script(name, *overrides, **environment):
    return subprocess.run(
        [sys.executable, ROOT / f"{name}.py", *overrides],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


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


@pytest.mark.parametrize("name", list(conf_folders.commands()))
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


@pytest.mark.parametrize("name", list(conf_folders.commands()))
def test_print_shows_what_compose_gives(name, capsys, command):
    seen = command(name)
    word = "output=x" if name in ("convert", "report") else "seed=5"
    assert cli.main(name, ["--print", word]) == 0
    assert OmegaConf.create(capsys.readouterr().out) == configs.compose(name, [word])
    assert seen == []


@pytest.mark.parametrize("name", list(conf_folders.commands()))
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


def sweep(tmp_path, *overrides):
    job = tmp_path / "job.py"
    job.write_text(JOB)
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, job, *overrides], env=path, capture_output=True, text=True, timeout=60)


def test_multirun_is_every_combination_in_fresh_processes(tmp_path):
    done = sweep(
        tmp_path, "-m", "seed=0,1", "run.root=a,b", "optimizer.betas=[0.5,0.9],[0,0.9]", "logger.wandb.project='x y'"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-4:] == [f"a,b/{seed} {beta} x y" for seed in (0, 1) for beta in (0.5, 0.0)]
    assert done.stdout.count("training") == 4


def test_multirun_continues_after_a_failure_and_reports_it(tmp_path):
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
    monkeypatch.setattr(cli, "_run_job", lambda overrides: pytest.fail("a job was started"))
    assert cli.main("train", ["-m", word]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_reader_that_has_had_enough_sees_no_traceback():
    line = f"{sys.executable} train.py --help | head -1"
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("Train a diffusion model.\n", "")
