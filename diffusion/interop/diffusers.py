"""diffusers' `UNet2DModel` and `DDPMPipeline` folders, read and written without diffusers: JSON and safetensors."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from diffusion.config.value_parsers import read_as
from diffusion.config.value_types import Count
from diffusion.ground.errors import UserError, reading
from diffusion.ground.files import atomic_folder
from diffusion.interop import diffusers_scheduler_config as scheduler
from diffusion.interop import diffusers_unet_config as unet
from diffusion.interop.foreign import Foreign, fit, load, rename, unname
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs import build

_FILE = "diffusion_pytorch_model"  # of the weights, without its ending
_SINUSOIDS = "time_embedding.linear_1.weight"  # our name; one column per sinusoid; theirs may have the cosines first

# Names of weights, ours -> theirs: blocks, and the parts of a block.
_BLOCKS = {
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
    """Whether `path` is the folder of a pipeline (model_index.json) or of a model (config.json)."""
    return path.is_dir() and any((path / name).is_file() for name in ("model_index.json", "config.json"))


def read(path: Path) -> Foreign:
    """The model in the folder of a `DDPMPipeline`, or of a `UNet2DModel` alone. The latter is assumed to have the
    default scheduler of diffusers, which is logged.

    Raises UserError for damaged files, and for options that our network or process cannot express, by name.
    """
    folder, scheduler_folder = (path / name if (path / name).is_dir() else path for name in ("unet", "scheduler"))
    file = folder / "config.json"
    with reading(file, "the config of a UNet2DModel"):
        config = _read_config(file, ["UNet2DModel"], unet.DEFAULTS, unet.ONLY)
        network, channels, size = unet.node_of(config), read_as(Count, config["in_channels"]), config["sample_size"]
    process = _process(scheduler_folder / "scheduler_config.json")
    out_channels = channels * (2 if "loss" in process else 1)
    if config["out_channels"] != out_channels:
        raise UserError(
            f"{file}: out_channels={config['out_channels']}, expected {out_channels}: twice in_channels with "
            "variance_type=learned_range, else the same number"
        )
    with reading(file, "the config of a UNet2DModel"), torch.device("meta"):
        ours = build.instantiate(network, in_channels=channels, out_channels=out_channels, size=size).state_dict()
    weights = fit(rename(_weights(folder), names(ours)), ours)
    if config["flip_sin_to_cos"]:
        weights[_SINUSOIDS] = weights[_SINUSOIDS].roll(weights[_SINUSOIDS].shape[1] // 2, dims=1)
    return Foreign({"network": network, "dataset": {"channels": channels, "size": size}, **process}, weights)


def write(model: LitDiffusion, folder: Path) -> None:
    """Writes a folder for `DDPMPipeline.from_pretrained`: the same network, with the current weights of the model, and
    the same process; its sampling is ancestral.

    Raises UserError for options that a UNet2DModel or a DDPMScheduler cannot express.
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
    """Their name -> ours, for the names in a state dict of our UNet. Our `qkv` is three tensors of theirs, in order."""
    table = {}
    for name in ours:
        block = next((block for block in _BLOCKS if name.startswith(block)), "")
        theirs = ".".join(_PARTS.get(part, part) for part in name.removeprefix(block).split("."))
        theirs = _BLOCKS.get(block, "") + theirs.replace("resample", f"{block[:-1]}samplers.0.conv")
        for projection in "qkv" if ".qkv." in name else "_":
            table[theirs.replace(".qkv.", f".to_{projection}.")] = name
    return table


def _weights(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder, by their current names."""
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
        rank_zero_info(f"no {file.name} next to the model: assumed linear, 1000 steps, eps")
        return scheduler.nodes_of(scheduler.DEFAULTS)
    with reading(file, "the config of a scheduler"):
        return scheduler.nodes_of(_read_config(file, scheduler.SAMPLERS, scheduler.DEFAULTS, scheduler.ONLY))


def _read_config(
    file: Path, classes: Iterable[str], defaults: Mapping[str, Any], only: Mapping[str, tuple]
) -> dict[str, Any]:
    """A config, completed by the defaults. Raises UserError for options that are in neither table, by name."""
    try:
        config = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    if config["_class_name"] not in classes:
        raise UserError(f"{file}: the config of a {config['_class_name']}, expected {' or '.join(classes)}")
    for name, value in config.items():
        if name in only:
            if value not in only[name]:
                raise UserError(f"{file}: {name}={value} cannot be expressed, only {name}={only[name][0]}")
        elif name not in defaults and not name.startswith("_") and value is not None:
            raise UserError(f"{file}: {name}={value} is unknown and cannot be expressed")
    return {**defaults, **config}
