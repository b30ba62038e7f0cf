"""Sample quality of each sampler at few steps: Frechet distances of samples of trained models to the real images.

    python benchmarks/sampler_quality.py RUN [RUN ...] [n=2000] [seeds=0,1,2] [steps=5,10,20] [SAMPLER ...]

RUN is a run folder or a checkpoint of greyscale images with labels (digits, mnist, fashion_mnist). SAMPLER is a choice
of conf/sampler, optionally with overrides in the same argument ("unipc times=karras order=2"); by default every choice
with its default values, and the stochastic dpm_solver_pp. All use the same noise, so distances can be compared more
closely than the differences between seeds suggest. Each measurement is appended to
runs/benchmarks/sampler_quality/rows.csv and not repeated; the table contains the rows of this command.
"""

import csv
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from frechet import accuracy, classifier, features, frechet_distance
from measure import machine
from omegaconf import OmegaConf
from torch import Tensor
from tqdm import tqdm

import diffusion
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs import build
from diffusion.runs.groups import choice, groups_of

FOLDER = Path("runs/benchmarks/sampler_quality")
BATCH = 100
COLUMNS = ("run", "weights", "sampler", "values", "steps", "n", "seed", "distance", "seconds", "commit")
KEY = ("weights", "values", "steps", "n", "seed")  # identifies a measurement


class Cell(NamedTuple):
    """One distance to measure: the sampler argument, its config without steps, and the rest of the protocol."""

    sampler: str
    node: Mapping[str, Any]
    steps: int
    n: int
    seed: int

    def key(self, weights: str) -> tuple[str, ...]:
        return tuple(map(str, (weights, json.dumps(self.node), self.steps, self.n, self.seed)))


class Judge:
    """A classifier of a dataset, and the features of its training images."""

    def __init__(self, node: Mapping[str, Any]):
        data = build.instantiate(node)
        data.prepare_data()
        (train, of_train), (val, of_val) = data.split("train"), data.split("val")
        labels, val_labels = of_train.tensors["label"], of_val.tensors["label"]
        torch.manual_seed(0)
        self.classifier = classifier(train, labels)
        self.real = features(self.classifier, train)
        self.about = (
            f"{node['name']}: distances to the {len(train):,} training images, {self(val):.2f} for the {len(val):,} "
            f"validation images; validation accuracy {accuracy(self.classifier, val, val_labels):.1%}"
        )

    def __call__(self, drawn: Tensor) -> float:
        """The distance of images uint8 (N, 1, H, W)."""
        return frechet_distance(features(self.classifier, drawn), self.real)


def node_of(argument: str) -> dict[str, Any]:
    """The config of a sampler argument, without its steps."""
    name, *values = argument.split()
    node = choice("sampler", name) | OmegaConf.to_container(OmegaConf.from_dotlist(values))
    return {key: value for key, value in node.items() if key != "steps"}


def digest(model: LitDiffusion) -> str:
    """A hash of the weights."""
    made = hashlib.blake2b(digest_size=6)
    for _, tensor in sorted(model.state_dict().items()):
        made.update(tensor.contiguous().numpy().tobytes())
    return made.hexdigest()


def commit() -> str:
    result = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def read() -> dict[tuple[str, ...], dict[str, str]]:
    """The rows measured so far, by their key."""
    if not (FOLDER / "rows.csv").exists():
        return {}
    with open(FOLDER / "rows.csv", newline="") as file:
        return {tuple(row[name] for name in KEY): row for row in csv.DictReader(file)}


def write(row: Sequence[Any]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "rows.csv"
    new = not path.exists()
    with open(path, "a", newline="") as file:
        csv.writer(file).writerows([COLUMNS, row] if new else [row])


def measure(run: str, cells: Sequence[Cell], judges: dict[str, Judge]) -> str:
    """Measures what is missing of a run's cells; returns the digest of its weights."""
    model = diffusion.load(run)
    weights, node = digest(model), model.config["dataset"]
    missing = [cell for cell in cells if cell.key(weights) not in read()]
    if node["name"] not in judges:
        judges[node["name"]] = Judge(node)
        print(judges[node["name"]].about, flush=True)
    for cell in tqdm(missing, desc=Path(run).name, unit=" distance"):
        start = time.perf_counter()
        sampler = build.instantiate({**cell.node, "steps": cell.steps})
        drawn = model.space.picture(model.sample(cell.n, cell.seed, sampler=sampler, batch_size=BATCH, progress=False))
        distance, seconds = judges[node["name"]](drawn), time.perf_counter() - start
        values = json.dumps(cell.node)
        row = (Path(run).name, weights, cell.sampler, values, cell.steps, cell.n, cell.seed)
        write([*row, f"{distance:.3f}", f"{seconds:.1f}", commit()])
    return weights


def table(weights: Mapping[str, str], cells: Sequence[Cell]) -> str:
    """As Markdown: the mean over the seeds of each run and number of steps, and in brackets its ratio to ddim's."""
    rows, steps = read(), sorted({cell.steps for cell in cells})
    lines = ["| sampler | " + " | ".join(f"{run}, {count} steps" for run in weights for count in steps) + " |"]
    lines.append("|---" * (1 + len(weights) * len(steps)) + "|")

    def mean(sampler: str, digest: str, count: int) -> float:
        found = [cell for cell in cells if (cell.sampler, cell.steps) == (sampler, count)]
        return statistics.mean(float(rows[cell.key(digest)]["distance"]) for cell in found)

    samplers = list(dict.fromkeys(cell.sampler for cell in cells))
    for sampler in samplers:
        line = [sampler]
        for digest in weights.values():
            for count in steps:
                distance = mean(sampler, digest, count)
                ratio = f" ({distance / mean('ddim', digest, count):.2f})" if "ddim" in samplers else ""
                line.append(f"{distance:.1f}{ratio}")
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def main() -> None:
    arguments = sys.argv[1:]
    options = dict(each.split("=", 1) for each in arguments if each.split("=")[0] in ("n", "seeds", "steps"))
    runs = [each for each in arguments if Path(each).exists()]
    default = [*groups_of("train")["sampler"].choices, "dpm_solver_pp stochastic=true"]
    samplers = [each for each in arguments if each.split()[0] in groups_of("train")["sampler"].choices] or default
    n = int(options.get("n", 2000))
    seeds, steps = (
        [int(one) for one in options.get(key, value).split(",")]
        for key, value in {"seeds": "0,1,2", "steps": "5,10,20"}.items()
    )
    cells = [
        Cell(sampler, node_of(sampler), count, n, seed) for seed in seeds for sampler in samplers for count in steps
    ]
    torch.set_num_threads(1)
    judges = {}
    weights = {Path(run).name: measure(run, cells, judges) for run in runs}
    about = [f"{n:,} images of each of the seeds {seeds}, commit {commit()}, {machine()}"]
    text = "\n".join([*about, *(judge.about for judge in judges.values()), "", table(weights, cells)])
    (FOLDER / "table.md").write_text(text + "\n")
    print(text, FOLDER / "table.md", sep="\n")


if __name__ == "__main__":
    main()
