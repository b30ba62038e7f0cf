"""Measure a trained model, or images from any program.

usage: python evaluate.py ckpt=RUN_FOLDER [OPTION] [GROUP=CHOICE] [KEY=VALUE] ...
       python evaluate.py images=FOLDER_OR_NPZ dataset=NAME metric=fd [KEY=VALUE] ...

  python evaluate.py ckpt=runs/mnist/first metric=bpd    the variational bound in bits per dimension, estimated
  python evaluate.py ckpt=runs/mnist/first metric=[fd,kid,prdc] n=2000 sampler=ddim   several, on the same images
  python evaluate.py ckpt=runs/mnist/first metric=memorisation    copies of training images, with a figure
  python evaluate.py images=my/samples dataset=mnist metric=fd    images of another program, by the same protocol
"""

import hashlib
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig
from torch import Tensor

from diffusion.conditioners.condition import PREVIOUS
from diffusion.config.plain import plain
from diffusion.config.registry import TARGET
from diffusion.config.value_types import File, Node
from diffusion.data.base import Data
from diffusion.evaluation import foreign_images
from diffusion.evaluation.comparison import Comparison, differences
from diffusion.evaluation.metrics.base import ImageMetric, Metric, ModelMetric, Score
from diffusion.evaluation.results import Results
from diffusion.ground.device import device_of
from diffusion.ground.errors import Notice, UserError
from diffusion.ground.files import atomic, json_text
from diffusion.ground.quiet import quiet
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs import build, checkpoint, manifest
from diffusion.runs.open_model import DeviceKeys, Trained
from diffusion.sampling.drawing import Drawing
from diffusion.sampling.samples import Samples, read
from diffusion.sampling.section import Sampling, SamplingKeys, refuse, unused_all
from diffusion.training.loggers.base import Result, log_results

LESS_MEMORY = "lower batch_size"
_N = 1000  # images to draw if n is null


class EvaluateKeys(SamplingKeys, DeviceKeys):
    """conf/evaluate.yaml."""

    ckpt: File | None
    images: File | None
    reference: File
    keep_images: bool
    log: bool
    dataset: Node | None
    space: Node
    features: Node


def run(composed: Annotated[DictConfig, EvaluateKeys]) -> Path:
    """Measures as the composed `conf/evaluate.yaml` describes. Returns the results file; raises UserError for user
    errors."""
    quiet()
    config = plain(composed)
    refuse(config["given"], {"space": "it is determined by the model or the dataset"})
    if (config["ckpt"] is None) == (config["images"] is None):
        raise UserError("ckpt is missing: set ckpt=..., or images=FOLDER and dataset=...")
    return _of_model(config) if config["images"] is None else _of_images(config)


def _of_model(config: Mapping[str, Any]) -> Path:
    trained = Trained.of(config)
    model = trained.model
    metrics = [_metric(node, model) for node in config["metric"].values()]
    data = _training_data(model, config["dataset"])
    of_images = [each for each in metrics if isinstance(each, ImageMetric)]
    of_model = [each for each in metrics if isinstance(each, ModelMetric)]
    for metric in of_model:
        metric.check(model, data)
    if not of_images:
        refuse(config["given"], dict.fromkeys(("features", "reference", "keep_images"), "no metric evaluates images"))
    if not of_images and not any(metric.samples for metric in of_model):
        names = ",".join(metric.name for metric in of_model)
        refuse(config["given"], unused_all(f"metric={names} draws no samples"))
    results = Results(Path(config["output"] or checkpoint.run_folder(trained.ckpt) / "evaluation"))
    described = data.describe()
    _report_changes(described, trained.ckpt)
    about = {
        "checkpoint": str(trained.ckpt.absolute()),
        "step": trained.contents.get("global_step"),
        "weights": config["weights"],
        "weights_sha256": checkpoint.weights_sha256(model.denoiser),
    }
    found: list[Result] = []
    for metric in of_model:
        drawn, protocol = _sampling(config, metric.samples, trained) if metric.samples else ({}, {})
        score = metric(model, data, seed=config["seed"], batch_size=config["batch_size"], **drawn)
        found.append(_add(results, metric, score, {**score.protocol, **protocol, "data": described}, about))
    if of_images:
        drawn, protocol = _sampling(config, _N, trained)
        sampling = drawn["sampling"]
        comparison = _comparison(config, data, Tensor())
        comparison.check()
        for metric in of_images:
            metric.check(sampling.n, comparison)
        with _drawn(config, trained, sampling, protocol, results.path.parent) as x_0:
            found += _measure(of_images, _comparison(config, data, x_0, comparison), results, protocol, about)
    if config["log"]:
        log_results(checkpoint.run_folder(trained.ckpt), found, about["step"] or 0)
    return results.path


def _of_images(config: Mapping[str, Any]) -> Path:
    """Evaluates the images of another program."""
    path = Path(config["images"]).expanduser()
    metrics = [_metric(node, None) for node in config["metric"].values()]
    for metric in metrics:
        if not isinstance(metric, ImageMetric):
            raise UserError(f"metric={metric.name} measures a model, not images: set ckpt=..., or choose metric=fd")
    if config["dataset"] is None or TARGET not in config["dataset"]:
        raise UserError(f"images={path} needs a dataset to compare with: set dataset=mnist, or another one")
    why = "images= are evaluated unchanged: nothing is drawn"
    refuse(
        config["given"],
        {**unused_all(why), **dict.fromkeys(("weights", "keep_images", "log", "kernels", "compile"), why)},
    )
    data = build.instantiate(config["dataset"], seed=0)
    data.prepare_data()
    found = foreign_images.read(path, data.declaration.shape)
    comparison = _comparison(config, data, found)
    comparison.check()
    for metric in metrics:
        assert isinstance(metric, ImageMetric)
        metric.check(len(found), comparison)
    results = Results(Path(config["output"]) if config["output"] else path.parent / "evaluation")
    _measure(metrics, comparison, results, {}, {"images": str(path.absolute())})
    return results.path


def _measure(
    metrics: list[Any], comparison: Comparison, results: Results, protocol: Mapping[str, Any], about: Mapping[str, Any]
) -> list[Result]:
    """Measures the same images by each metric; one row each."""
    found = []
    for metric in metrics:
        score = metric(comparison)
        found.append(_add(results, metric, score, {**comparison.protocol(), **score.protocol, **protocol}, about))
    return found


def _comparison(config: Mapping[str, Any], data: Data, found: Tensor, like: Comparison | None = None) -> Comparison:
    """like: a comparison whose extractor is reused."""
    reference = config["reference"]
    if reference not in ("train", "val") and not Path(reference).is_file():
        raise UserError(f"reference={reference}: expected train, val, or a npz file with mu and sigma")
    extractor = build.instantiate(config["features"]).extractor(data) if like is None else like.extractor
    extractor = replace(extractor, device=device_of(config["accelerator"]))
    return Comparison(found, data, extractor, reference, config["seed"])


@contextmanager
def _drawn(
    config: Mapping[str, Any], trained: Trained, sampling: Sampling, protocol: Mapping[str, Any], folder: Path
) -> Iterator[Tensor]:
    """The images to evaluate, uint8 (n, C, H, W): drawn into a folder that an interrupted command resumes from, and
    that is removed at the end unless keep_images."""
    settings = {**trained.settings(), **protocol["sampling"]}
    digest = hashlib.blake2b(json_text(settings).encode(), digest_size=6).hexdigest()
    samples = Samples(folder / f"images_{digest}", settings, trained.model.space)
    with samples.writing():
        Drawing(trained.model, sampling, 1, config["batch_size"]).draw(samples)
    yield read(samples.pictures()[: sampling.n])
    if config["keep_images"]:
        print(f"the images are in {samples.images}")
    else:
        shutil.rmtree(samples.folder)


def _add(
    results: Results, metric: Metric, score: Score, protocol: Mapping[str, Any], about: Mapping[str, Any]
) -> Result:
    """Prints a score and appends its row; returns what loggers show of it."""
    print(score.summary, flush=True)
    row = {
        "metric": metric.name,
        "value": score.value,
        **score.details,
        "summary": score.summary.splitlines()[0],
        "protocol": protocol,
        "model": about,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **manifest.program(),
    }
    for name, text in score.files.items():
        with atomic(results.path.with_name(name)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    before = [each for each in results.rows() if each.get("metric") == metric.name]
    for same in results.add(row, score.figure)[-1:]:
        print(f"measured before with the same protocol ({same.get('date')}: {same.get('value')}); both rows are kept")
    for last in before[-1:]:
        if unlike := differences(last.get("protocol") or {}, results.added["protocol"]):
            print(f"not comparable with {last.get('value')} of {last.get('date')}: {manifest.text(unlike)}")
    figure = results.added.get("figure")
    return Result(metric.name, score, None if figure is None else results.path.with_name(figure))


def _metric(node: Mapping[str, Any], model: LitDiffusion | None) -> Metric:
    """The metric of its config, with its `clipping` and `features` built."""
    node = dict(node)
    if (clipping := node.pop("clipping", None)) is not None and model is not None:
        node["clipping"] = build.clipping(clipping, model.space)
    if (features := node.get("features")) is not None:
        node["features"] = build.instantiate(features)
    return build.instantiate(node)


def _sampling(config: Mapping[str, Any], n: int, trained: Trained) -> tuple[dict[str, Sampling], dict[str, Any]]:
    """The sampling of n images unless the config sets another number, and its entries in the protocol. Raises UserError
    for keys without an effect."""
    section = {**config, "n": config["n"] or n}
    sampling = Sampling.of(section, trained.model, ckpt=trained.ckpt, contents=trained.contents, given=config["given"])
    unused = sampling.unused(trained.model)
    refuse(config["given"], unused)
    about = {"n": sampling.n, "weights": config["weights"], **sampling.settings(unused)}
    return {"sampling": sampling}, {"sampling": about}


def _training_data(model: LitDiffusion, given: Mapping[str, Any] | None) -> Data:
    """The training dataset, with the given values changed, such as the path."""
    node = model.config["dataset"]
    given = given or {}
    if TARGET in given:
        warnings.warn("dataset= replaces the dataset that the model was trained on", Notice, stacklevel=2)
        node = given
    for key in given.keys() - node.keys():
        raise UserError(f"dataset.{key}={given[key]}: the dataset of this model has no {key}")
    data = build.instantiate({**node, **given}, seed=model.seed)
    data.prepare_data()
    if model.classes is not None and list(data.classes or []) != list(model.classes):
        raise UserError(f"{data.name} in {data.path} has other classes than the model: {data.classes}, {model.classes}")
    known = data.split("val")[1].tensors
    for name in model.conditioning:
        if name != PREVIOUS and name not in known:
            raise UserError(f"{data.name} in {data.path} has no {name}, which the model is conditioned on")
    return data


def _report_changes(now: Mapping[str, Any], ckpt: Path) -> None:
    """Prints a line if the data differ from those recorded by the run of the checkpoint."""
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
        same = "" if found.keys() - {"fingerprint"} else " (same number of images, different content)"
        print(f"the data differ from those of the training: {manifest.text(found)}{same}")
