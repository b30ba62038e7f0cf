"""The commands of the product on one core each, and the lines that are kept of their results."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MEASUREMENTS = ROOT / "docs" / "measurements"
SAMPLERS = {
    "stochastic": "sampler=dpm_solver_pp sampler.steps=20 sampler.times=trailing sampler.stochastic=true",
    "ddim": "sampler=ddim sampler.steps=20",
}


def on_cores(cores: str, jobs: Iterable[Callable[[str], None]]) -> None:
    """Runs jobs on the cores "0,1", one at a time on each; a job is given the number of its core. Raises the first
    error after all jobs have ended."""
    free: Queue[str] = Queue()
    for core in cores.split(","):
        free.put(core)

    def run(job: Callable[[str], None]) -> None:
        core = free.get()
        try:
            job(core)
        finally:
            free.put(core)

    with ThreadPoolExecutor(free.qsize()) as pool:
        running = [pool.submit(run, job) for job in jobs]
    for each in running:
        each.result()


def command(core: str, script: str, *overrides: str) -> None:
    """Runs a script of this checkout on one core, in one thread. Raises CalledProcessError, with the error output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    call = ["taskset", "-c", core, sys.executable, str(ROOT / script), *overrides]
    done = subprocess.run(call, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{script} {' '.join(overrides)}\n{done.stderr[-2000:]}", flush=True)
        done.check_returncode()


def distance(core: str, folder: Path, *overrides: str) -> dict[str, Any]:
    """The row of a Frechet distance that evaluate.py writes into `folder`."""
    command(core, "evaluate.py", *overrides, "metric=fd", "features=classifier", f"output={folder}")
    return rows(folder / "results.jsonl")[-1]


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON, the oldest first; none without a file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(path: Path, row: Mapping[str, Any]) -> None:
    """Appends a line, and prints it."""
    line = json.dumps(row)
    with open(path, "a") as file:
        file.write(f"{line}\n")
    print(line, flush=True)


def options(arguments: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The key=value and the names among the arguments of a benchmark."""
    given = [*arguments]
    return dict(each.split("=", 1) for each in given if "=" in each), [each for each in given if "=" not in each]
