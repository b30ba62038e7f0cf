"""Loggers by their names, and the rows that they wrote."""

import csv

from diffusion.runs.groups import choice
from diffusion.training.loggers.base import build_loggers

CONFIG = {"seed": 0, "dataset": {"name": "digits", "batch_size": 4}, "list": [1, 2]}


def loggers_of(run_folder, *names, **changes):
    nodes = {key: {**node, **changes} for name in names for key, node in choice("logger", name).items()}
    return build_loggers(nodes, run_folder, "a run", CONFIG)


def rows(run_folder) -> list[dict[str, str]]:
    with open(run_folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))
