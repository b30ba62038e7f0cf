"""The search for a recipe: arms of equal cost, judged by their images.

    python benchmarks/recipes.py [images=90000] [seed=0] [n=1000] [cores=0,1] [dataset=mnist] [path=data] [ARM ...]

Without an ARM, all of them. images: the number that an arm with `unet_small` and no attention sees; an arm with another
network sees fewer or more, by the time of its training step (COSTS): the load of the machine changes no result. Each
core takes the next arm: `train.py` with the overrides of the arm, then `evaluate.py` by two samplers of 20 steps. A
result is a line of docs/measurements/recipes.jsonl; an arm that has one is not repeated, an interrupted one resumes.
The table of all results is printed at the end.
"""

import math
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pinned import MEASUREMENTS, SAMPLERS, command, distance, keep, on_cores, options, rows

RESULTS = MEASUREMENTS / "recipes.jsonl"
RUNS = Path("runs/recipes")
COMMON = "logger=none callbacks=none strategy=cpu validate.every_n_minutes=1000 checkpoints.every_n_minutes=1000"
FORMER = "experiment=mnist_cpu"
COSINE = f"{FORMER} optimizer.lr=2e-3 lr_schedule=cosine"
MUON = f"{COSINE} optimizer=muon"
BARE = (
    "schedule=cosine prediction=v network=unet_small network.layers=1 "
    "network.mid_attention=true dataset.batch_size=128 optimizer.lr=2e-3 optimizer.warmup_steps=200 "
    "optimizer.betas=[0.9,0.99] lr_schedule=cosine lr_schedule.final=0.03 timesteps=stratified ema.decay=0.999"
)
ARMS = {
    "former": FORMER,
    "bare": BARE,
    "bare-32": f"{BARE} dataset.batch_size=32",
    "cosine": COSINE,
    "cosine-1e-3": f"{COSINE} optimizer.lr=1e-3",
    "cosine-32": f"{COSINE} dataset.batch_size=32",
    "cosine-1-layer": f"{COSINE} network.layers=1",
    "cosine-stratified": f"{COSINE} timesteps=stratified",
    "cosine-betas": f"{COSINE} optimizer.betas=[0.9,0.99]",
    "cosine-attention": f"{COSINE} network.mid_attention=true",
    "cosine-24-48": f"{COSINE} network.widths=[24,48]",
    "cosine-48-96-1-layer": f"{COSINE} network.widths=[48,96] network.layers=1",
    "cosine-ema": f"{COSINE} ema.decay=0.999",
    "cosine-eps": f"{COSINE} prediction=eps",
    "cosine-linear": f"{COSINE} schedule=linear",
    "cosine-min-snr": f"{COSINE} weighting=min_snr",
    "muon": MUON,
    "muon-1e-3": f"{MUON} optimizer.lr=1e-3",
    "muon-4e-3": f"{MUON} optimizer.lr=4e-3",
    "muon-8e-3": f"{MUON} optimizer.lr=8e-3",
    "muon-32": f"{MUON} dataset.batch_size=32",
    "muon-128": f"{MUON} dataset.batch_size=128",
    "muon-1-layer": f"{MUON} network.layers=1",
    "muon-attention": f"{MUON} network.mid_attention=true",
    "muon-stratified": f"{MUON} timesteps=stratified",
    "muon-ema-0.995": f"{MUON} ema.decay=0.995",
    "muon-ema-0.999": f"{MUON} ema.decay=0.999",
    "muon-betas": f"{MUON} optimizer.betas=[0.9,0.99]",
    "muon-momentum-0.9": f"{MUON} optimizer.momentum=0.9",
    "muon-48-96": f"{MUON} network.widths=[48,96]",
    "muon-24-48": f"{MUON} network.widths=[24,48]",
    "muon-3-layers": f"{MUON} network.layers=3",
    "muon-constant": f"{MUON} lr_schedule=constant",
    "muon-eps": f"{MUON} prediction=eps",
    "muon-min-snr": f"{MUON} weighting=min_snr",
    "muon-linear": f"{MUON} schedule=linear prediction=eps",
}

# Of a training step, in that of `unet_small`: the product of what is in an arm's name.
COSTS = {"1-layer": 0.70, "3-layers": 1.30, "48-96": 2.0, "24-48": 0.7, "attention": 1.07, "bare": 0.75, "muon": 1.05}


def main() -> None:
    given, names = options(sys.argv[1:])
    settings = {"dataset": given.get("dataset", "mnist"), "images": int(given.get("images", 90_000))}
    settings |= {"seed": int(given.get("seed", 0)), "n": int(given.get("n", 1000))}
    jobs = [partial(_run, arm, settings, given.get("path", "data")) for arm in names or ARMS]
    on_cores(given.get("cores", "0,1"), jobs)
    print(table(settings))
    print(RESULTS)


def _run(arm: str, settings: Mapping[str, str | int], path: str, core: str) -> None:
    key = {"arm": arm, **settings}
    if any(key.items() <= row.items() for row in rows(RESULTS)):
        return
    run = RUNS / f"{settings['dataset']}-{settings['images']}-{settings['seed']}-{arm}"
    chosen = [f"dataset={settings['dataset']}", f"dataset.path={path}", f"seed={settings['seed']}", f"run.dir={run}"]
    command(core, "train.py", *overrides(arm, int(settings["images"])), *chosen, "resume=auto")
    found = {}
    for name, sampler in SAMPLERS.items():
        drawn = [f"ckpt={run}", f"dataset.path={path}", *sampler.split(), f"n={settings['n']}"]
        row = distance(core, run / f"evaluation_{name}", *drawn)
        found |= {name: round(row["value"], 3), "step": row["model"]["step"]}
    keep(RESULTS, key | found | {"overrides": ARMS[arm]})


def overrides(arm: str, images: int) -> list[str]:
    """Those of the training of an arm that costs as much as `images` of `unet_small`."""
    found = dict(each.split("=", 1) for each in f"{COMMON} {ARMS[arm]}".split())  # the last of a key wins
    cost = math.prod(factor for part, factor in COSTS.items() if part in arm)
    steps = round(images / cost / int(found.get("dataset.batch_size", 64)))
    limits = {"trainer.max_steps": steps, "trainer.max_minutes": "null"}
    return [f"{key}={value}" for key, value in (found | limits).items()]


def table(settings: Mapping[str, str | int]) -> str:
    """The results with these settings as Markdown, the best first."""
    found = sorted((row for row in rows(RESULTS) if settings.items() <= row.items()), key=lambda row: row["stochastic"])
    lines = ["| arm | steps | stochastic, 20 | ddim, 20 | overrides |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {r['arm']} | {r['step']} | {r['stochastic']} | {r['ddim']} | `{r['overrides']}` |" for r in found]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
