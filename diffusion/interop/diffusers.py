"""diffusers' `UNet2DModel` and `DDPMPipeline` folders, read and written without diffusers: JSON and safetensors."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from diffusion.config.kinds import read_as
from diffusion.config.values import Count
from diffusion.ground.errors import UserError, reading
from diffusion.ground.files import atomic_folder
from diffusion.interop import diffusers_scheduler as scheduler
from diffusion.interop import diffusers_unet as unet
from diffusion.interop.foreign import Foreign, fit, load, rename, unname
from diffusion.lit.module import LitDiffusion
from diffusion.runs import build

_FILE = "diffusion_pytorch_model"  # of the weights, without its ending
_SINUSOIDS = "time_embedding.linear_1.weight"  # ours, a column for each; theirs may have cosines first

# Names of weights: where a block stands, and what is inside it; ours -> theirs.
_PLACES = {
    "down.": "down_blocks.",
    "up.": "up_blocks.",
    "middle.0.": "mid_block.resnets.0.",
    "middle.1.": "mid_block.attentions.0.",
    "middle.2.": "mid_block.resnets.1.",
}
_PARTS = {
    "residuals": "resnets",
    "norm_1": "norm1",
    "norm_2": "norm2",
    "norm_out": "conv_norm_out",
    "conv_1": "conv1",
    "conv_2": "conv2",
    "embedding": "time_emb_proj",
    "shortcut": "conv_shortcut",
    "norm": "group_norm",
    "out": "to_out.0",
}
_FORMER = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}  # of 2022


def recognises(path: Path, contents: Any) -> bool:
    """A folder of a pipeline (model_index.json) or of a model (config.json)."""
    return path.is_dir() and any((path / name).is_file() for name in ("model_index.json", "config.json"))


def read(path: Path) -> Foreign:
    """The model in a folder of a `DDPMPipeline`, or of a `UNet2DModel` alone, whose scheduler is then taken to be
    diffusers' default one, and that is said.

    Raises UserError for what is damaged, and, by name, for what our network or process cannot express.
    """
    folder, scheduler_folder = (path / name if (path / name).is_dir() else path for name in ("unet", "scheduler"))
    file = folder / "config.json"
    with reading(file, "the config of a UNet2DModel"):
        told = _told(file, ["UNet2DModel"], unet.DEFAULTS, unet.ONLY)
        network, channels, size = unet.node_of(told), read_as(Count, told["in_channels"]), told["sample_size"]
    process = _process(scheduler_folder / "scheduler_config.json")
    out_channels = channels * (2 if "loss" in process else 1)
    if told["out_channels"] != out_channels:
        raise UserError(
            f"{file}: out_channels={told['out_channels']}, expected {out_channels}: twice in_channels with "
            "variance_type=learned_range, else as many"
        )
    with reading(file, "the config of a UNet2DModel"), torch.device("meta"):
        ours = build.instantiate(network, in_channels=channels, out_channels=out_channels, size=size).state_dict()
    weights = fit(rename(_weights(folder), names(ours)), ours)
    if told["flip_sin_to_cos"]:
        weights[_SINUSOIDS] = weights[_SINUSOIDS].roll(weights[_SINUSOIDS].shape[1] // 2, dims=1)
    return Foreign({"network": network, "dataset": {"channels": channels, "size": size}, **process}, weights)


def write(model: LitDiffusion, folder: Path) -> None:
    """Writes what `DDPMPipeline.from_pretrained` loads: the same network, with the weights that the model has, and the
    same process; its sampling is ancestral.

    Raises UserError for what a UNet2DModel or a DDPMScheduler cannot express.
    """
    contents = {
        "model_index.json": {
            "_class_name": "DDPMPipeline",
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        },
        "unet/config.json": unet.config_of(model),
        "scheduler/scheduler_config.json": scheduler.config_of(model),
    }
    weights = unname(model.denoiser.network.state_dict(), names(model.denoiser.network.state_dict()))
    with atomic_folder(folder) as temporary:
        for name, values in contents.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_text(json.dumps(values, indent=2) + "\n")
        safetensors.torch.save_file(weights, temporary / "unet" / f"{_FILE}.safetensors", {"format": "pt"})


def names(ours: Iterable[str]) -> dict[str, str]:
    """Their name -> ours, for the names in a state dict of our UNet. Our `qkv` is three of theirs, in that order."""
    table = {}
    for name in ours:
        place = next((place for place in _PLACES if name.startswith(place)), "")
        theirs = ".".join(_PARTS.get(part, part) for part in name.removeprefix(place).split("."))
        theirs = _PLACES.get(place, "") + theirs.replace("resample", f"{place[:-1]}samplers.0.conv")
        for projection in "qkv" if ".qkv." in name else "_":
            table[theirs.replace(".qkv.", f".to_{projection}.")] = name
    return table


def _weights(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder, by the names that they have today."""
    file = next((file for end in ("safetensors", "bin") if (file := folder / f"{_FILE}.{end}").is_file()), None)
    if file is None:
        raise UserError(f"{folder}: no weights; expected {_FILE}.safetensors or {_FILE}.bin")
    with reading(file, "the weights of a UNet2DModel"):
        weights = {}
        for name, weight in load(file).items():
            for former, today in _FORMER.items():
                name = name.replace(former, today)
            weights[name] = weight
    return weights


def _process(file: Path) -> dict[str, Any]:
    """The nodes of our config for a scheduler's config."""
    if not file.is_file():
        rank_zero_info(f"no {file.name} beside the model: taken to be linear, 1000 steps, eps")
        return scheduler.nodes_of(scheduler.DEFAULTS)
    with reading(file, "the config of a scheduler"):
        return scheduler.nodes_of(_told(file, scheduler.SAMPLERS, scheduler.DEFAULTS, scheduler.ONLY))


def _told(file: Path, classes: Iterable[str], defaults: Mapping[str, Any], only: Mapping[str, tuple]) -> dict[str, Any]:
    """What a config says, over the defaults. Raises UserError, by name, for what is in neither of the tables."""
    try:
        told = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    if told["_class_name"] not in classes:
        raise UserError(f"{file}: of a {told['_class_name']}, expected {' or '.join(classes)}")
    for name, value in told.items():
        if name in only:
            if value not in only[name]:
                raise UserError(f"{file}: {name}={value} cannot be expressed, only {name}={only[name][0]}")
        elif name not in defaults and not name.startswith("_") and value is not None:
            raise UserError(f"{file}: {name}={value} is not known, and so cannot be expressed")
    return {**defaults, **told}
