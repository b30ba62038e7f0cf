"""`python evaluate.py`: measures a checkpoint, and returns the file with the number."""

import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffusion import build, checkpoint, plots
from diffusion.commands.device import device_of
from diffusion.data.base import ImageData
from diffusion.errors import UserError
from diffusion.files import atomic
from diffusion.lit import LitDiffusion
from diffusion.networks import native
from diffusion.quiet import quiet


def run(config: DictConfig) -> Path:
    """Measures as the composed `conf/evaluate.yaml` says. Returns the JSON; raises UserError for a user's mistake."""
    quiet()
    config = OmegaConf.to_container(config, resolve=True)
    native.enabled = config["compile"]
    metric = build.instantiate(config["metric"])
    ckpt = checkpoint.find(config["ckpt"])
    model = checkpoint.load(ckpt, config["weights"], device_of(config["accelerator"]))
    data = _data(model, config["dataset"]["path"])
    folder = _folder(config["output"], ckpt)
    score = metric(model, data, seed=config["seed"], batch_size=config["batch_size"])
    print(score.summary)
    plots.write_figure(folder / f"{metric.name}.png", score.figure)
    found = {"metric": metric.name, "value": score.value, **score.details}
    found |= {"weights": config["weights"], "checkpoint": str(ckpt)}
    with atomic(folder / f"{metric.name}.json") as temporary:
        temporary.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
    return folder / f"{metric.name}.json"


def _data(model: LitDiffusion, path: str | None) -> ImageData:
    """The data set of the training, from another folder where there is a path."""
    node = model.config["dataset"]
    data = build.instantiate(node if path is None else {**node, "path": path}, seed=model.seed)
    data.prepare_data()
    if model.classes is not None and list(data.classes or []) != list(model.classes):
        raise UserError(f"{data.name} in {data.path} has other classes than the model: {data.classes}, {model.classes}")
    return data


def _folder(output: str | None, ckpt: Path) -> Path:
    """The folder to write to; what cannot be written is found out before the work."""
    folder = Path(output) if output else checkpoint.run_folder(ckpt) / "evaluation"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another output=") from None
    return folder
