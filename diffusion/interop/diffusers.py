"""diffusers' `UNet2DModel` and `DDPMPipeline` folders, both ways and without diffusers: JSON and safetensors."""

import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from diffusion import build, clipping
from diffusion.config import choice
from diffusion.errors import UserError
from diffusion.files import atomic_folder
from diffusion.interop.foreign import Foreign, fit, load, reading, rename
from diffusion.lit import LitDiffusion
from diffusion.networks.unet import UNet
from diffusion.schedule import Schedule

_WEIGHTS = "diffusion_pytorch_model"

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

# Their constructors' defaults: what a config.json does not say.
_UNET = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "add_attention": True,
    "num_train_timesteps": None,  # of learned embeddings of time, which there are not
}
_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "rescale_betas_zero_snr": False,
}
# The only values of their other words that we can express, the default among them.
_UNET_ONLY = {
    "act_fn": ("silu", "swish"),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "downsample_type": ("conv",),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2D",),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_type": ("positional",),
    "upsample_type": ("conv",),
}
_SCHEDULER_ONLY = {
    "clip_sample_range": (1,),
    "predict_epsilon": (True,),
    "set_alpha_to_one": (True,),
    "steps_offset": (0,),
    "tensor_format": ("pt", "np"),
}
_SAMPLERS = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim"}
_PREDICTIONS = {"epsilon": "eps", "sample": "x_0", "v_prediction": "v"}
_VARIANCES = {  # theirs -> ours
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",
    "fixed_large": "fixed_large",
    "learned_range": "learned",
}
# Words of our UNet that their config has; the others must be as our UNet has them when nothing is said.
_EXPRESSED = {
    *("in_channels", "out_channels", "size", "num_classes", "widths", "layers", "attention", "mid_attention"),
    *("head_width", "dropout", "norm_groups", "norm_eps", "freq_shift", "downsample_padding"),
}
_SPACINGS = ("leading", "trailing", "linspace")
_NO_BOUND = 1e6  # their dynamic thresholding has an upper bound, ours has none


def recognises(path: Path, contents: Any) -> bool:
    """A folder of a pipeline (model_index.json) or of a model (config.json)."""
    return path.is_dir() and any((path / name).is_file() for name in ("model_index.json", "config.json"))


def read(path: Path) -> Foreign:
    """The model in a folder of a `DDPMPipeline`, or of a `UNet2DModel` alone: then its schedule is taken to be the
    default one, linear with 1000 steps and eps prediction.

    Raises UserError for what is damaged, and, by name, for what our network or process cannot express.
    """
    unet, scheduler = (path / name if (path / name).is_dir() else path for name in ("unet", "scheduler"))
    with reading(unet / "config.json", "a config of a UNet2DModel"):
        told = _told(unet / "config.json", ("UNet2DModel",), _UNET, _UNET_ONLY)
        network, channels, size = _network(told), told["in_channels"], told["sample_size"]
        learned = told["out_channels"] == 2 * channels
        with torch.device("meta"):
            ours = build.instantiate(network, in_channels=channels, out_channels=told["out_channels"], size=size)
    file = scheduler / "scheduler_config.json"
    with reading(file, "a config of a scheduler"):
        process = _process(_told(file, _SAMPLERS, _SCHEDULER, _SCHEDULER_ONLY) if file.exists() else _SCHEDULER)
    if learned != ("loss" in process) or told["out_channels"] not in (channels, 2 * channels):
        raise UserError(
            f"{unet / 'config.json'}: out_channels={told['out_channels']} for images of {channels} channels, expected "
            f"as many, or twice as many with variance_type=learned_range"
        )
    theirs = {_present(name): weight for name, weight in load(_weights_file(unet)).items()}
    weights = fit(rename(theirs, names(ours.state_dict())), ours.state_dict())
    if told["flip_sin_to_cos"]:
        weights |= _cosines_first(weights)
    return Foreign({"network": network, "dataset": {"channels": channels, "size": size}, **process}, weights)


def write(model: LitDiffusion, folder: Path) -> None:
    """Writes what `DDPMPipeline.from_pretrained` loads: the same network, with the weights that the model has, and the
    same schedule; its sampling is ancestral.

    Raises UserError for what a UNet2DModel or a DDPMScheduler cannot express.
    """
    unet, scheduler = _unet_config(model), _scheduler_config(model)
    weights = {}
    parts: dict[str, list[str]] = {}
    state = model.denoiser.network.state_dict()
    for theirs, ours in names(state).items():
        parts.setdefault(ours, []).append(theirs)
    for ours, several in parts.items():
        weights |= zip(several, (part.contiguous() for part in state[ours].chunk(len(several))), strict=True)
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    with atomic_folder(folder) as temporary:
        _write_json(temporary / "model_index.json", index)
        _write_json(temporary / "unet" / "config.json", unet)
        _write_json(temporary / "scheduler" / "scheduler_config.json", scheduler)
        safetensors.torch.save_file(weights, temporary / "unet" / f"{_WEIGHTS}.safetensors", {"format": "pt"})


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


def _present(name: str) -> str:
    """The name that a weight has today."""
    for former, today in _FORMER.items():
        name = name.replace(former, today)
    return name


def _cosines_first(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layer after the sinusoids for a network whose cosines came first."""
    name = "time_embedding.linear_1.weight"
    return {name: weights[name].roll(weights[name].shape[1] // 2, dims=1)}


def _told(file: Path, classes: Iterable[str], defaults: Mapping[str, Any], only: Mapping[str, tuple]) -> dict[str, Any]:
    """What a config says, over the defaults. Raises UserError, by name, for what is in neither of the tables."""
    try:
        told = json.loads(file.read_text())
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


def _network(told: Mapping[str, Any]) -> dict[str, Any]:
    """The node of our UNet for the config of a UNet2DModel."""
    widths, size = told["block_out_channels"], told["sample_size"]
    if not isinstance(size, int):
        raise UserError(f"sample_size={size}: expected the one number of pixels of square images")
    if told["time_embedding_dim"] not in (None, 4 * widths[0]):
        raise UserError(f"time_embedding_dim={told['time_embedding_dim']} cannot be expressed, only {4 * widths[0]}")
    if told["attn_norm_num_groups"] not in (None, told["norm_num_groups"]):
        raise UserError("attn_norm_num_groups cannot be expressed where it is not norm_num_groups")
    return {
        **choice("network", "unet_ddpm"),
        "widths": widths,
        "layers": told["layers_per_block"],
        "attention": [size // 2**level for level, attends in enumerate(_attends(told, len(widths))) if attends],
        "dropout": told["dropout"],
        "head_width": told["attention_head_dim"],
        "mid_attention": told["add_attention"],
        "norm_groups": told["norm_num_groups"],
        "norm_eps": told["norm_eps"],
        "freq_shift": told["freq_shift"],
        "downsample_padding": told["downsample_padding"],
    }


def _attends(told: Mapping[str, Any], levels: int) -> list[bool]:
    """Whether each level has attention, the same on both sides of the U."""
    kinds = {False: ("DownBlock2D", "UpBlock2D"), True: ("AttnDownBlock2D", "AttnUpBlock2D")}
    down, up = told["down_block_types"], told["up_block_types"][::-1]
    attends = ["Attn" in kind for kind in down]
    if [*zip(down, up, strict=True)] != [kinds[one] for one in attends] or len(down) != levels:
        raise UserError(
            f"down_block_types={down}, up_block_types={told['up_block_types']}: only (Attn)DownBlock2D and (Attn)"
            f"UpBlock2D can be expressed, one for each of the {levels} levels and the same on both sides"
        )
    return attends


def _process(told: Mapping[str, Any]) -> dict[str, Any]:
    """Schedule, prediction, variance and clipping for the config of a scheduler."""
    prediction = _one_of(told, "prediction_type", _PREDICTIONS)
    variance = _one_of(told, "variance_type", _VARIANCES)
    times = _one_of(told, "timestep_spacing", dict(zip(_SPACINGS, _SPACINGS, strict=True)))
    sampler = choice("sampler", _SAMPLERS[told.get("_class_name", "DDPMScheduler")])
    process = {
        "schedule": _schedule(told),
        "prediction": choice("prediction", prediction),
        "sampler": sampler | {"times": times} | ({"variance": variance} if "variance" in sampler else {}),
        "clipping": _clipping(told),
    }
    if variance == "learned":
        process["loss"] = choice("loss", "hybrid")
    if told["rescale_betas_zero_snr"]:
        process["weighting"] = choice("weighting", "snr")
    return process


def _one_of(told: Mapping[str, Any], name: str, table: Mapping[str, str]) -> str:
    if told[name] not in table:
        raise UserError(f"{name}={told[name]} cannot be expressed, only {', '.join(table)}")
    return table[told[name]]


def _schedule(told: Mapping[str, Any]) -> dict[str, Any]:
    """The node of the schedule: one of ours where it is the same, or else the table of betas."""
    T, kind = told["num_train_timesteps"], told["beta_schedule"]
    ends = {"beta_start": told["beta_start"], "beta_end": told["beta_end"]}
    own = {"zero_terminal_snr": told["rescale_betas_zero_snr"]}
    if told["trained_betas"] is not None:
        return {**choice("schedule", "table"), "betas": told["trained_betas"], **own}
    if kind == "squaredcos_cap_v2":
        return {**choice("schedule", "cosine"), "T": T, **own}
    if kind in ("linear", "scaled_linear") and T == 1000:
        return {**choice("schedule", kind), **ends, **own}
    first, last = ends.values()
    curves = {
        "linear": lambda: torch.linspace(first, last, T, dtype=torch.float64),
        "scaled_linear": lambda: torch.linspace(first**0.5, last**0.5, T, dtype=torch.float64) ** 2,
        "sigmoid": lambda: torch.sigmoid(torch.linspace(-6, 6, T, dtype=torch.float64)) * (last - first) + first,
    }
    betas = _one_of(told, "beta_schedule", curves)()
    return {**choice("schedule", "table"), "betas": betas.tolist(), **own}


def _clipping(told: Mapping[str, Any]) -> dict[str, Any]:
    if not told["thresholding"]:
        return choice("clipping", "static" if told["clip_sample"] else "none")
    if told["sample_max_value"] == 1:  # their percentile is cut at it, and is then always 1
        return choice("clipping", "static")
    if told["sample_max_value"] < _NO_BOUND:
        raise UserError(f"sample_max_value={told['sample_max_value']} cannot be expressed, only 1 or {_NO_BOUND:g}")
    return {**choice("clipping", "dynamic"), "percentile": told["dynamic_thresholding_ratio"]}


def _weights_file(folder: Path) -> Path:
    for name in f"{_WEIGHTS}.safetensors", f"{_WEIGHTS}.bin":
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: no weights; expected {_WEIGHTS}.safetensors or {_WEIGHTS}.bin")


def _unet_config(model: LitDiffusion) -> dict[str, Any]:
    """The config of the UNet2DModel that is the model's network."""
    if not isinstance(model.denoiser.network, UNet):
        raise UserError(f"to=diffusers: {model.config['network']['_target_']} is not one of their networks")
    if model.classes is not None or model.denoiser.self_condition:
        raise UserError("to=diffusers: a DDPMPipeline tells its network neither classes nor its last prediction")
    words = {name: parameter.default for name, parameter in inspect.signature(UNet).parameters.items()}
    node = words | model.config["network"]
    for name in words.keys() - _EXPRESSED:
        if node[name] != words[name]:
            raise UserError(f"to=diffusers: network.{name}={node[name]} cannot be expressed, only {words[name]}")
    channels, size, _ = model.shape
    attends = [size // 2**level in node["attention"] for level in range(len(node["widths"]))]
    return {
        "_class_name": "UNet2DModel",
        "sample_size": size,
        "in_channels": channels,
        "out_channels": 2 * channels if model.objective.learns_variance else channels,
        "freq_shift": node["freq_shift"],
        "flip_sin_to_cos": False,
        "down_block_types": ["AttnDownBlock2D" if attention else "DownBlock2D" for attention in attends],
        "up_block_types": ["AttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(attends)],
        "block_out_channels": node["widths"],
        "layers_per_block": node["layers"],
        "downsample_padding": node["downsample_padding"],
        "dropout": node["dropout"],
        "attention_head_dim": node["head_width"],
        "norm_num_groups": node["norm_groups"],
        "norm_eps": node["norm_eps"],
        "add_attention": node["mid_attention"],
    }


def _scheduler_config(model: LitDiffusion) -> dict[str, Any]:
    """The config of the DDPMScheduler with the model's schedule, prediction, variance and clipping."""
    config, schedule = model.config, model.denoiser.schedule
    kind = config["prediction"]["_target_"]
    predictions = {choice("prediction", ours)["_target_"]: theirs for theirs, ours in _PREDICTIONS.items()}
    if kind not in predictions:
        raise UserError(f"to=diffusers: a DDPMScheduler has no prediction {kind.rpartition('.')[2]}")
    times = config["sampler"].get("times")
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": schedule.T,
        **_betas(config["schedule"], schedule),
        "prediction_type": predictions[kind],
        "variance_type": _variance(model),
        **_clipping_config(model.clip),
        "timestep_spacing": times if times in _SPACINGS else "trailing",
    }


def _betas(node: Mapping[str, Any], schedule: Schedule) -> dict[str, Any]:
    """Their words for a schedule: by name where it has one, or else each beta."""
    for theirs, ours in {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}.items():
        named = choice("schedule", ours)
        ends = {key: node[key] for key in ("beta_start", "beta_end") if key in named and key in node}
        if node == {**named, **ends}:
            return {"beta_schedule": theirs, **ends}
    k = torch.arange(1, schedule.T + 1)
    return {"trained_betas": schedule.beta(k - 1, k).tolist()}


def _variance(model: LitDiffusion) -> str:
    """Their word for what ancestral sampling does in the model's config; fixed_small where it has another sampler."""
    variance = model.config["sampler"].get("variance", "auto")
    if variance == "auto":
        variance = "learned" if model.objective.learns_variance else "fixed_small"
    theirs = {"fixed_small": "fixed_small", "fixed_large": "fixed_large", "learned": "learned_range"}
    if variance not in theirs or model.objective.learns_variance != (variance == "learned"):
        raise UserError(f"to=diffusers: a DDPMScheduler cannot express sampler.variance={variance} of this network")
    return theirs[variance]


def _clipping_config(clip: Any) -> dict[str, Any]:
    if isinstance(clip, clipping.Dynamic):
        thresholding = {"dynamic_thresholding_ratio": clip.percentile, "sample_max_value": _NO_BOUND}
        return {"clip_sample": False, "thresholding": True, **thresholding}
    return {"clip_sample": isinstance(clip, clipping.Static)}


def _write_json(file: Path, contents: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(contents, indent=2) + "\n")
