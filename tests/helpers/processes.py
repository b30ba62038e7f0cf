"""The commands, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
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
