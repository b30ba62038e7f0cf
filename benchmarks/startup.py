"""Start-up time of the commands: seconds, compared with only importing torch and lightning.

    python benchmarks/startup.py

Start-up is `sample.py` until its error about a missing checkpoint, after all imports that sampling needs.
"""

import subprocess
import sys
from pathlib import Path

from measure import Row, alternate, report, seconds

TOP = Path(__file__).resolve().parent.parent
IMPORTS = ["-c", "import torch, lightning.pytorch"]


def run(*arguments: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, *arguments], cwd=TOP, capture_output=True))


def rows() -> list[Row]:
    commands = {"sample.py --help": ["--help"], "start-up of sample.py": ["ckpt=no/such/run"]}
    return [
        alternate(
            f"{what} / imports", lambda w=w: run("sample.py", *w), lambda: run(*IMPORTS), "s", rounds=5, less=True
        )
        for what, w in commands.items()
    ]


if __name__ == "__main__":
    report(rows())
