"""Measure a trained model on the validation images of its data set.

usage: python evaluate.py ckpt=RUN_FOLDER [OPTION] [GROUP=CHOICE] [KEY=VALUE] ...

  python evaluate.py ckpt=runs/mnist/first metric=bpd    the variational bound in bits per dimension, estimated
  python evaluate.py ckpt=runs/mnist/first metric.n=null metric.steps=null   all images and all T terms
  python evaluate.py ckpt=runs/mnist/first/best dataset.path=my/data output=my/numbers
"""

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, TypedDict

from omegaconf import DictConfig

from diffusion.conditioners.condition import PREVIOUS
from diffusion.config.plain import plain
from diffusion.config.values import File
from diffusion.data.base import Data
from diffusion.evaluation.metric import Metric
from diffusion.evaluation.results import Results
from diffusion.ground.errors import UserError
from diffusion.ground.quiet import quiet
from diffusion.lit.module import LitDiffusion
from diffusion.runs import build, checkpoint, manifest
from diffusion.runs.trained import Trained, TrainedKeys
from diffusion.sampling.section import Sampling, SamplingKeys, refuse, unused_all

LESS_MEMORY = "lower batch_size"


class DatasetKeys(TypedDict):
    path: File | None


class EvaluateKeys(SamplingKeys, TrainedKeys):
    """conf/evaluate.yaml."""

    dataset: DatasetKeys


def run(composed: Annotated[DictConfig, EvaluateKeys]) -> Path:
    """Measures as the composed `conf/evaluate.yaml` says. Returns the file of results; raises UserError for a user's
    mistake."""
    quiet()
    config = plain(composed)
    trained = Trained.of(config)
    model, ckpt = trained.model, trained.ckpt
    metric = _metric(config["metric"], model)
    data = _data(model, config["dataset"]["path"])
    metric.check(model, data)
    drawn, protocol = _sampling(config, metric, trained)
    results = Results(Path(config["output"]) if config["output"] else checkpoint.run_folder(ckpt) / "evaluation")
    described = data.describe()
    _say_changes(described, ckpt)
    score = metric(model, data, seed=config["seed"], batch_size=config["batch_size"], **drawn)
    print(score.summary, flush=True)
    row = {
        "metric": metric.name,
        "value": score.value,
        **score.details,
        "summary": score.summary.splitlines()[0],
        "protocol": {**score.protocol, **protocol, "data": described},
        "model": {
            "checkpoint": str(ckpt.absolute()),
            "step": trained.contents.get("global_step"),
            "weights": config["weights"],
            "weights_sha256": checkpoint.weights_sha256(model.denoiser),
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **manifest.program(),
    }
    for same in results.add(row, score.figure)[-1:]:
        print(f"measured before with the same protocol ({same.get('date')}: {same.get('value')}); both rows are kept")
    return results.path


def _metric(node: Mapping[str, Any], model: LitDiffusion) -> Metric:
    """The metric of its config, with its `clipping` built."""
    node = dict(node)
    if (clipping := node.pop("clipping", None)) is not None:
        node["clipping"] = build.clipping(clipping, model.space)
    return build.instantiate(node)


def _sampling(
    config: Mapping[str, Any], metric: Metric, trained: Trained
) -> tuple[dict[str, Sampling], dict[str, Mapping[str, Any]]]:
    """The arguments and the entries of the protocol of a metric that draws samples; both empty for other metrics.
    Raises UserError for a key without an effect."""
    if not metric.samples:
        refuse(config["given"], unused_all(f"metric={metric.name} draws no samples"))
        return {}, {}
    section = {**config, "n": config["n"] or metric.samples}
    sampling = Sampling.of(section, trained.model, ckpt=trained.ckpt, contents=trained.contents, given=config["given"])
    unused = sampling.unused(trained.model)
    refuse(config["given"], unused)
    return {"sampling": sampling}, {"sampling": {"n": sampling.n, **sampling.settings(unused)}}


def _data(model: LitDiffusion, path: str | None) -> Data:
    """The data set of the training, from the folder `path` if there is one."""
    node = model.config["dataset"]
    if path is not None and "path" not in node:
        raise UserError(f"dataset.path={path}: the data set of this model has no folder")
    data = build.instantiate(node if path is None else {**node, "path": path}, seed=model.seed)
    data.prepare_data()
    if model.classes is not None and list(data.classes or []) != list(model.classes):
        raise UserError(f"{data.name} in {data.path} has other classes than the model: {data.classes}, {model.classes}")
    known = data.split("val")[1].tensors
    for name in model.conditioning:
        if name != PREVIOUS and name not in known:
            raise UserError(f"{data.name} in {data.path} has no {name}, which the model is conditioned on")
    return data


def _say_changes(now: Mapping[str, Any], ckpt: Path) -> None:
    """Prints a line where the data differ from those that the run of the checkpoint recorded."""
    if ckpt.parent.name != "checkpoints" or not (checkpoint.run_folder(ckpt) / manifest.NAME).exists():
        return
    try:
        before = dict(manifest.read(checkpoint.run_folder(ckpt))["data"])
    except (UserError, KeyError, TypeError, ValueError) as error:
        print(f"cannot check that the data are those of the training ({type(error).__name__}: {error})")
        return
    old, new = ({key: each.get(key) for key in now if key != "name"} for each in (before, now))
    found = manifest.differences(old, new)
    if found:
        same = "" if found.keys() - {"fingerprint"} else " (as many images, others)"
        print(f"the data differ from those of the training: {manifest.text(found)}{same}")
