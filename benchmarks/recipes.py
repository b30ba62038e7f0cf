"""The search for a recipe: arms of equal cost, judged by their images.

    python benchmarks/recipes.py [images=90000] [seed=0] [n=1000] [cores=0,1] [dataset=mnist] [path=data] [ARM ...]

Without an ARM, all of them. images: the number that an arm with `unet_small` and no attention sees; an arm with another
network sees fewer or more, by the time of its training step (COSTS): the load of the machine changes no result. Each
core takes the next arm: `train.py` with the overrides of the arm, then `evaluate.py` by two samplers of 20 steps. A
result is a line of docs/measurements/recipes.jsonl; an arm that has one is not repeated, an interrupted one resumes.
The table of all results is printed at the end.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "measurements" / "recipes.jsonl"
RUNS = Path("runs/recipes")
SAMPLERS = {
    "stochastic": "sampler=dpm_solver_pp sampler.steps=20 sampler.times=trailing sampler.stochastic=true",
    "ddim": "sampler=ddim sampler.steps=20",
}
COMMON = "logger=none callbacks=none strategy=cpu validate.every_n_minutes=1000 checkpoints.every_n_minutes=1000"
FORMER = "experiment=mnist_cpu"
COSINE = f"{FORMER} optimizer.lr=2e-3 lr_schedule=cosine"
MUON = f"{COSINE} optimizer=muon"
BARE = (
    "schedule=cosine prediction=v network=unet_small network.layers=1 network.scale_shift=true "
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
    "cosine-48-96-1": f"{COSINE} network.widths=[48,96] network.layers=1",
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

COSTS = {"1-layer": 0.70, "3-layers": 1.30, "48-96": 2.0, "24-48": 0.7, "attention": 1.07, "bare": 0.75, "muon": 1.05}


def main() -> None:
    options = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    arms = [word for word in sys.argv[1:] if "=" not in word] or [*ARMS]
    settings = {"dataset": options.get("dataset", "mnist"), "images": int(options.get("images", 90_000))}
    settings |= {"seed": int(options.get("seed", 0)), "n": int(options.get("n", 1000))}
    cores: Queue[str] = Queue()
    for core in options.get("cores", "0,1").split(","):
        cores.put(core)
    with ThreadPoolExecutor(cores.qsize()) as pool:
        for arm in arms:
            pool.submit(_run, arm, settings, options.get("path", "data"), cores)
    print(table(settings))
    print(RESULTS)


def _run(arm: str, settings: Mapping[str, object], path: str, cores: "Queue[str]") -> None:
    key = {"arm": arm, **settings}
    if any(key.items() <= row.items() for row in results()):
        return
    core = cores.get()
    try:
        row = key | _measured(arm, settings, path, core)
        with open(RESULTS, "a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    except subprocess.CalledProcessError as error:
        print(f"{arm}: {error}\n{error.stderr[-2000:]}", flush=True)
    finally:
        cores.put(core)


def _measured(arm: str, settings: Mapping[str, object], path: str, core: str) -> dict[str, object]:
    run = RUNS / f"{settings['dataset']}-{settings['images']}-{settings['seed']}-{arm}"
    data = [f"dataset={settings['dataset']}", f"dataset.path={path}"]
    given = [*COMMON.split(), *ARMS[arm].split(), *data, f"seed={settings['seed']}", f"run.dir={run}", "resume=auto"]
    overrides = dict(word.split("=", 1) for word in given)  # the last of a key wins
    cost = next((cost for part, cost in COSTS.items() if part in arm), 1.0)
    steps = round(int(str(settings["images"])) / cost / int(overrides.get("dataset.batch_size", 64)))
    limits = {"trainer.max_steps": steps, "trainer.max_minutes": "null"}
    _command(core, "train.py", *(f"{key}={value}" for key, value in (overrides | limits).items()))
    row: dict[str, object] = {}
    for name, sampler in SAMPLERS.items():
        folder = run / f"evaluation_{name}"
        drawn = [*sampler.split(), f"n={settings['n']}", "metric=fd", "features=classifier", f"output={folder}"]
        _command(core, "evaluate.py", f"ckpt={run}", f"dataset.path={path}", *drawn)
        last = json.loads((folder / "results.jsonl").read_text().splitlines()[-1])
        row |= {name: round(last["value"], 3), "step": last["model"]["step"]}
    return row | {"overrides": ARMS[arm].strip()}


def _command(core: str, script: str, *overrides: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["taskset", "-c", core, sys.executable, str(ROOT / script), *overrides]
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment)


def results() -> list[dict[str, object]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def table(settings: Mapping[str, object]) -> str:
    """The results with these settings as Markdown, the best first."""
    rows = sorted((row for row in results() if settings.items() <= row.items()), key=lambda row: str(row["arm"]))
    rows.sort(key=lambda row: float(str(row["stochastic"])))
    lines = ["| arm | steps | stochastic, 20 | ddim, 20 | overrides |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {r['arm']} | {r['step']} | {r['stochastic']} | {r['ddim']} | `{r['overrides']}` |" for r in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    main()
