"""kill -9 at random moments: the same command, given again until the run ends, ends with the same bytes.

One machine: the trainings are forked from a process that has imported everything, so that a kill costs a second. Two
gloo processes: as a user starts them.
"""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from tests.helpers.commands import tiny

ROOT = Path(__file__).parent.parent
STEPS = 60  # two epochs of 25 batches, each with a validation, and a part of a third
RUN = tiny(
    *("dataset.batch_size=60", "network.dropout=0.1", "ema.decay=0.9", "resume=auto"),
    *("trainer.log_every_n_steps=1", "checkpoints.every_n_steps=4", f"trainer.max_steps={STEPS}"),
)
LINE_BY_LINE = """
import os, sys
import torch
from diffusion.commands import cli
import diffusion.commands.train
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        sys.argv = ["train.py", *line.split()]
        os._exit(cli.main("train", line.split()))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextmanager
def forking(log):
    """Yields a function that trains with the words it is given, kills that after `seconds`, and returns its exit code:
    -9, or 0 where it was sooner at its end."""
    server = subprocess.Popen(
        [sys.executable, "-c", LINE_BY_LINE, log],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    assert server.stdout.readline() == "ready\n"

    def train(*given, seconds=None):
        print(*given, file=server.stdin, flush=True)
        child = int(server.stdout.readline())
        if seconds is not None:
            time.sleep(seconds)
            with suppress(ProcessLookupError):  # it was sooner at its end
                os.kill(child, signal.SIGKILL)
        return int(server.stdout.readline())

    try:
        yield train
    finally:
        server.stdin.close()
        server.wait()


def in_two_processes(*given, seconds=None):
    """Like the function that `forking` yields, but trains in two processes, which are killed together."""
    with subprocess.Popen(
        [sys.executable, ROOT / "train.py", *(word.replace("strategy=cpu", "strategy=ddp_cpu") for word in given)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()


def kill_and_compare(train, folder, kills):
    """Kills at `kills` random moments, in as many runs as that takes, and compares each with one that nobody killed."""
    start = time.monotonic()
    assert train(*RUN, f"run.dir={folder / 'whole'}") == 0
    duration = time.monotonic() - start
    seed = int(os.environ.get("TEST_SEED") or time.time_ns())
    print(f"TEST_SEED={seed} repeats these kills")  # shown where the test fails
    moments = random.Random(seed)
    runs, done = [], 0
    while done < kills:
        runs.append(folder / str(len(runs)))
        code = -9
        while code == -9:
            seconds = moments.uniform(0, duration) if done < kills else None
            code = train(*RUN, f"run.dir={runs[-1]}", seconds=seconds)
            done += code == -9
        assert code == 0
    for run in runs:
        assert_same(folder / "whole", run)


def assert_same(one, two):
    first, second = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, two))
    assert second["global_step"] == STEPS
    for part in ("state_dict", "ema_state_dict", "optimizer_states", "lr_schedulers", "Digits"):
        assert_equal(first[part], second[part], part)
    (validated, trained), (validated_too, trained_too) = logged(one), logged(two)
    assert len(validated) == 3
    assert validated_too == validated
    # A kill between a checkpoint and the row of its step loses the row: never another, never twice.
    assert sorted({*trained_too, *trained}) == sorted(trained)
    assert len(trained_too) == len(set(trained_too))


def assert_equal(one, two, where):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_equal(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        for number, (value, other) in enumerate(zip(one, two, strict=True)):
            assert_equal(value, other, f"{where}.{number}")
    else:
        assert one == two, where


def logged(run):
    """What metrics.csv holds: rows of validations, and of training steps."""
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("val/")]
    validated = [(row["step"], *(row[name] for name in names)) for row in rows if row["val/loss"]]
    return validated, [(row["step"], row["train/loss"]) for row in rows if row["train/loss"]]


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    with forking(tmp_path / "log") as train:
        kill_and_compare(train, tmp_path, 20)


@pytest.mark.slow
def test_five_kills_of_two_processes(tmp_path):
    kill_and_compare(in_two_processes, tmp_path, 5)
