"""Count the numbers in a checkpoint.

usage: python -m diffusion count ckpt=RUN_FOLDER [KEY=VALUE] ...

  python -m diffusion count ckpt=runs/mnist/first         of each part of the network
  python -m diffusion count ckpt=runs/mnist/first depth=2 of coarser parts
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, TypedDict

from omegaconf import DictConfig

from diffusion.config.value_types import Count, File
from diffusion.ground.files import write_json
from diffusion.runs import checkpoint


class CountKeys(TypedDict):
    """conf/count.yaml."""

    ckpt: File
    depth: Count
    output: File | None


def run(config: Annotated[DictConfig, CountKeys]) -> Path:
    """As the composed `conf/count.yaml` says. What it returns is the last line printed."""
    path, contents = checkpoint.opened(config.ckpt)
    counts = Counter()
    for name, tensor in contents["state_dict"].items():
        counts[".".join(name.split(".")[: config.depth])] += tensor.numel()
    for part, count in counts.most_common():
        print(f"{count:>10,}  {part}")
    output = Path(config.output or checkpoint.run_folder(path) / "count.json")
    write_json(output, dict(counts))
    return output
