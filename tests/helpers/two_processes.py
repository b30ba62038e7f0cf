"""A script that Lightning starts twice, as two gloo processes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_script(script, folder):
    """Runs the text of a script, which is given `folder` as its argument. Returns the finished process."""
    file = folder / "script.py"
    file.write_text(script)
    added = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_ERROR_REPORTING": "false"}
    done = subprocess.run(
        [sys.executable, file, folder], env={**os.environ, **added}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done
