"""Make a checkpoint of another program's model, or write a trained model for other programs.

usage: python convert.py from=FOLDER_OR_FILE [output=FILE]
       python convert.py ckpt=RUN_FOLDER to=FORMAT [weights=ema] [output=PATH]

  python convert.py from=my/ddpm-cifar10-32              a folder of diffusers: makes my/ddpm-cifar10-32.ckpt
  python convert.py from=64x64_diffusion.pt              a file of OpenAI's guided- or improved-diffusion
  python convert.py from=results/model-10.pt size=32     a file of lucidrains' Trainer, which does not store the size
  python convert.py ckpt=runs/mnist/first to=diffusers   a folder that DDPMPipeline.from_pretrained loads
  python convert.py ckpt=runs/mnist/first to=onnx weights=raw output=network.onnx
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from omegaconf import DictConfig

from diffusion.config.plain import plain
from diffusion.config.value_types import Count, File
from diffusion.config.value_types import Weights as WeightsName
from diffusion.ground.errors import UserError
from diffusion.ground.quiet import quiet
from diffusion.interop import diffusers, foreign, onnx, programs, safetensors
from diffusion.runs import checkpoint
from diffusion.runs.groups import choice, groups_of
from diffusion.runs.weights import Weights

ConvertKeys = TypedDict(  # conf/convert.yaml; `from` is a keyword of Python
    "ConvertKeys",
    {
        "from": File | None,
        "ckpt": File | None,
        "to": Literal["diffusers", "onnx", "safetensors"] | None,
        "weights": WeightsName,
        "output": File | None,
        "size": Count | None,
        "schedule": Literal["linear", "cosine"] | None,
        "T": Count | None,
        "heads": Count | None,
        "head_width": Count | None,
        "order": Literal["heads_first", "qkv_first"] | None,
        "rescale_timesteps": bool | None,
    },
)
_WRITERS = {  # to=...: writer, and default file name
    "diffusers": (diffusers.write, "diffusers"),
    "onnx": (onnx.write, "model.onnx"),
    "safetensors": (safetensors.write, "model.safetensors"),
}
_OF_BOTH = {"from", "ckpt", "to", "weights", "output"}  # the other keys are hints for `from`
# The groups of a training config that a model of another program determines.
_FIXED = ("space", "network", "schedule", "prediction", "loss", "weighting", "clipping", "sampler")


def run(composed: Annotated[DictConfig, ConvertKeys]) -> Path:
    """Converts as the composed `conf/convert.yaml` describes. Returns the file or folder made; raises UserError for
    user errors."""
    quiet()
    config = plain(composed)
    source, ckpt, to = config["from"], config["ckpt"], config["to"]
    if (source is None) == (ckpt is None):
        raise UserError(
            "expected either from=FOLDER_OR_FILE (of another program), or ckpt=RUN to=diffusers|onnx|safetensors"
        )
    if ckpt is None and (to is not None or config["weights"] != "ema"):
        raise UserError("to= and weights= belong to ckpt=...; from=... converts all weights in the file")
    hints = {key: config[key] for key in config.keys() - _OF_BOTH if config[key] is not None}
    if ckpt is None:
        return _import(Path(source), config["output"], hints)
    if to is None:
        raise UserError(f"to is missing: set to={', '.join(_WRITERS)}")
    if hints:
        raise UserError(f"{min(hints)}= belongs to from=...; a checkpoint of this program contains it")
    return _export(ckpt, to, config)


def _import(source: Path, output: str | None, hints: Mapping[str, Any]) -> Path:
    """Makes a checkpoint of another program's model and prints the command that trains it further. hints: values that
    its file does not contain."""
    named = source if source.name.strip(".") else source.resolve()
    path = _free(output or named.with_name(f"{named.name if source.is_dir() else named.stem}.ckpt"))
    model = programs.read(source, hints)
    _write(foreign.write, model, path)
    trained = foreign.train_config(model)
    count = sum(weight.numel() for weight in model.weights.values())
    overrides = [f"resume={path}", "resume_mode=weights", "dataset.path=FOLDER", *_overrides(trained)]
    print(f"{count / 1e6:.2f}M parameters; to continue training: python train.py {shlex.join(overrides)}")
    return path


def _export(ckpt: str, to: str, config: Mapping[str, Any]) -> Path:
    """Writes a checkpoint of this program for another program."""
    write, name = _WRITERS[to]
    found, contents = checkpoint.opened(ckpt)
    path = _free(config["output"] or checkpoint.run_folder(found) / "converted" / name)
    _write(write, checkpoint.trained(contents, found, Weights.of(config["weights"])), path)
    return path


def _free(output: str | Path) -> Path:
    if Path(output).exists():
        raise UserError(f"{output} exists: choose another output=")
    return Path(output)


def _write(write: Any, model: Any, path: Path) -> None:
    try:
        write(model, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another output=") from None


def _overrides(config: Mapping[str, Any]) -> Iterator[str]:
    """The overrides with which train.py composes this model; a table of betas is too long and omitted."""
    dataset = config["dataset"]
    yield "dataset=image_folder" if "size" in dataset else "dataset=arrays"
    yield from (f"dataset.{key}={dataset[key]}" for key in ("channels", "size") if key in dataset)
    if config["self_conditioning"]:
        yield "self_conditioning=true"
    if config["conditioning"]:
        yield f"conditioning=[{','.join(config['conditioning'])}]"
    for group in _FIXED:
        known = groups_of("train")[group]
        others = {name: _others(config[group], choice(group, name)) for name in known.choices}
        name, values = min(others.items(), key=lambda other: len(other[1]))
        if name == "table":
            continue
        if name != known.default or values:
            yield f"{group}={name}"
        for key, value in values.items():
            yield f"{group}.{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"


def _others(node: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `node` that are not those of the choice."""
    return {key: value for key, value in node.items() if choice.get(key) != value}
