"""Which kind of machine rounds as which: what a test of bits must know."""

import hashlib
from pathlib import Path

import torch


def kind() -> str:
    """The version of torch and the processor; its name alone tells little, a virtual machine often hides the model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"torch {torch.__version__}, unknown"
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    fields = [found.get(key, "") for key in ("model name", "cpu family", "model", "stepping")]
    flags = hashlib.sha256(" ".join(sorted(found.get("flags", "").split())).encode()).hexdigest()[:8]
    return f"torch {torch.__version__}, {' '.join(fields)}, flags {flags}"
