"""Quality and time of samplers at several numbers of network evaluations, for a checkpoint."""

import csv
import hashlib
import io
import json
import shlex
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf

from diffusion.config import conf_folders
from diffusion.config.plain import plain
from diffusion.config.value_types import Count, checked
from diffusion.data.base import Data
from diffusion.evaluation import plots
from diffusion.evaluation.comparison import Comparison
from diffusion.evaluation.features.base import Extractor, Features
from diffusion.evaluation.formulas import Moments, frechet
from diffusion.evaluation.metrics.base import ModelMetric, Score
from diffusion.ground.bar import Bar
from diffusion.ground.errors import Notice, UserError
from diffusion.ground.files import cache_folder, read_json, write_json
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs import build, checkpoint
from diffusion.runs.groups import choice
from diffusion.samplers.base import Sampler
from diffusion.sampling.section import Sampling

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VARIANT = "dpm_solver_pp stochastic=true times=trailing"
_SLACK = 1.05  # times the least distance: distances up to this count as equally good


@dataclass(frozen=True)
class Cell:
    """A sampler, as an override line without `sampler.`, its number of network evaluations, and the result."""

    sampler: str
    nfe: int
    distance: float
    seconds: float


@checked
@dataclass(frozen=True)
class Samplers(ModelMetric):
    """The Frechet distance of n images by each sampler at each number of network evaluations, all from the same noise:
    a table, a figure, and the command line of the fastest of those equal to the best. The value is the least distance.
    A cell that was measured before is read from the cache.

    samplers: choices followed by values, such as "unipc order=2"; None: the defaults of every choice except ddpm, and
    the stochastic dpm_solver_pp. nfe: network evaluations. times: spacings to try with each; None: the default of each.
    """

    features: Features
    samplers: Sequence[str] | None = None
    nfe: Sequence[Count] = (10, 20, 50)
    times: Sequence[str] | None = None
    n: Count = 1000

    name = "samplers"

    def check(self, model: LitDiffusion, data: Data) -> None:
        for line in self._lines():
            _sampler(line, self.nfe[0])

    def __call__(
        self, model: LitDiffusion, data: Data, *, seed: int, batch_size: int, sampling: Sampling | None = None
    ) -> Score:
        extractor = self.features.extractor(data)
        if self.n < 2 * extractor.width:
            raise UserError(f"metric.samplers.n={self.n}: expected at least twice the {extractor.width} features")
        wanted = [(line, nfe) for line in self._lines() for nfe in self.nfe]
        cells = []
        with Bar(total=len(wanted), desc="samplers", unit=" cell") as bar:
            for line, nfe in wanted:
                cells += self._cell(line, nfe, model, data, extractor, seed, batch_size)
                bar.update()
        if not cells:
            raise UserError("metric.samplers: none of the samplers supports these numbers of evaluations")
        protocol = {"n": self.n, "seed": seed, "features": dict(extractor.recipe), "data": data.fingerprint("train")}
        best = recommended(cells)
        command = f"python sample.py ckpt=RUN {_overrides(best)}"
        least = min(each.distance for each in cells)
        summary = f"least distance {least:.4g}; recommended: {command}\n{table(cells)}"
        details: dict[str, Any] = {"cells": [asdict(each) for each in cells], "recommended": command}
        files = {"samplers.csv": _csv(cells), "samplers.md": f"{table(cells)}\n\n`{command}`\n"}
        return Score(least, details, protocol, summary, _figure(cells), files, details["cells"])

    def _lines(self) -> list[str]:
        usual = [name for name in conf_folders.choices("sampler") if name != "ddpm"]
        lines = [*(self.samplers or [*usual, _VARIANT])]
        if self.times is None:
            return lines
        bare = dict.fromkeys(" ".join(part for part in line.split() if not part.startswith("times=")) for line in lines)
        return [f"{line} times={spacing}" for line in bare for spacing in self.times]

    def _cell(
        self, line: str, nfe: int, model: LitDiffusion, data: Data, extractor: Extractor, seed: int, batch_size: int
    ) -> list[Cell]:
        """The cell, from the cache folder if it was measured before; empty if the sampler does not support nfe."""
        sampler = _sampler(line, nfe)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Notice)  # the table shows which sampler is better
                sampler.check(model.denoiser.schedule, model.objective.learns_variance)
        except UserError:
            return []
        path = _path(
            {"weights": checkpoint.weights_sha256(model.denoiser), "sampler": line, "nfe": nfe, "n": self.n}
            | {"seed": seed, "features": extractor.digest, "data": data.fingerprint("train")}
        )
        if path.exists():
            return [Cell(**read_json(path))]
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)
            x_0 = model.sample(self.n, seed, sampler=sampler, batch_size=batch_size, progress=False)
        seconds = time.perf_counter() - start
        comparison = Comparison(model.space.picture(x_0), data, extractor, progress=False)
        distance = frechet(Moments.of(comparison.features), comparison.reference_moments)
        cell = Cell(line, nfe, distance, seconds)
        write_json(path, asdict(cell))
        return [cell]


def _path(key: Mapping[str, Any]) -> Path:
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=12).hexdigest()
    return cache_folder() / "samplers" / f"{digest}.json"


def _sampler(line: str, nfe: int) -> Sampler:
    """The sampler of a line with about nfe evaluations. Raises UserError for an unknown choice or key."""
    name, *values = line.split()
    node = choice("sampler", name)
    given = plain(OmegaConf.from_dotlist(values))
    if unknown := given.keys() - node.keys():
        raise UserError(f"metric.samplers.samplers: {name} has no {', '.join(sorted(unknown))}")
    made = build.instantiate({**node, **given})
    return build.instantiate({**node, **given, "steps": max(1, nfe // made.evaluations)})


def recommended(cells: Sequence[Cell]) -> Cell:
    """The fastest of those within 5 % of the least distance."""
    least = min(each.distance for each in cells)
    return min((each for each in cells if each.distance <= _SLACK * least), key=lambda each: each.seconds)


def _overrides(cell: Cell) -> str:
    name, *values = cell.sampler.split()
    steps = max(1, cell.nfe // build.instantiate(choice("sampler", name)).evaluations)
    return shlex.join([f"sampler={name}", f"sampler.steps={steps}", *(f"sampler.{each}" for each in values)])


def table(cells: Sequence[Cell]) -> str:
    """A Markdown table: a row per sampler, a column per number of evaluations, with distance and seconds."""
    columns = sorted({each.nfe for each in cells})
    lines = [f"| sampler | {' | '.join(f'{nfe} evaluations' for nfe in columns)} |", "|---" * (1 + len(columns)) + "|"]
    for name in dict.fromkeys(each.sampler for each in cells):
        found = {each.nfe: f"{each.distance:.3g} ({each.seconds:.3g} s)" for each in cells if each.sampler == name}
        lines.append(f"| {name} | {' | '.join(found.get(nfe, '') for nfe in columns)} |")
    return "\n".join(lines)


def _csv(cells: Sequence[Cell]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["sampler", "nfe", "distance", "seconds"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, cells))
    return text.getvalue()


def _figure(cells: Sequence[Cell]) -> "Figure":
    """Distance against evaluations and against seconds, with the Pareto line of the latter."""
    lines = {name: [each for each in cells if each.sampler == name] for name in dict.fromkeys(c.sampler for c in cells)}
    by_seconds = sorted(cells, key=lambda each: each.seconds)
    least = torch.tensor([each.distance for each in by_seconds]).cummin(0).values.tolist()
    front = [each for each, value in zip(by_seconds, least, strict=True) if each.distance <= value]
    return plots.draw_samplers(lines, front)
