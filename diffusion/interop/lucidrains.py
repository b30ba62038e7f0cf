"""Files of the `Trainer` of lucidrains' denoising-diffusion-pytorch 2, such as `model-10.pt`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.ground.errors import UserError, reading
from diffusion.interop.foreign import Foreign, by_module, load, rename
from diffusion.runs import build
from diffusion.runs.groups import choice
from diffusion.schedule import Table

# Their modules -> ours, inside a residual block, inside either attention, and at the ends of the network.
RESIDUAL = {
    "mlp.1": "embedding",
    "block1.proj": "conv_1",
    "block1.norm": "norm_1",
    "block2.proj": "conv_2",
    "block2.norm": "norm_2",
    "res_conv": "shortcut",
}
ATTENTION = {"": "", "norm": "norm", "to_qkv": "qkv", "to_out": "out", "to_out.0": "out", "to_out.1": "norm_out"}
LEAVES = {"g": "weight", "mem_kv": "memory"}
ENDS = {"init_conv": "conv_in", "time_mlp.1": "linear_1", "time_mlp.3": "linear_2", "final_conv": "conv_out"}
SCHEDULES = ("linear", "cosine", "sigmoid")
# Prediction -> the weight of its squared error at a signal-to-noise ratio; the weights are saved with the betas
OBJECTIVES = {"eps": lambda snr: snr / snr, "x_0": lambda snr: snr, "v": lambda snr: snr / (snr + 1)}


def recognises(path: Path, contents: Any) -> bool:
    """Whether the contents are a file of `Trainer` or the state dict of a `GaussianDiffusion`."""
    state = contents.get("model", contents) if isinstance(contents, Mapping) else None
    return isinstance(state, Mapping) and "model.init_conv.weight" in state


def read(path: Path, *, size: int | None = None) -> Foreign:
    """The model of a file such as `results/model-10.pt`, with its average.

    size: of the images, which the weights do not determine. The buffers `betas` and `loss_weight` determine schedule,
    prediction and weighting. The images are assumed to be normalised to [-1, 1], their default.

    Raises: UserError for a file that cannot be read or is of another network, and without size.
    """
    contents = load(path)
    if not recognises(path, contents):
        raise UserError(f"{path}: not a file of the Trainer of denoising-diffusion-pytorch (no model.init_conv)")
    if size is None:
        raise UserError(f"{path}: the weights do not determine the image size: set size=, such as size=32")
    with reading(path, "the Unet of denoising-diffusion-pytorch 2; older versions have others"):
        return _translated(contents, size, path)


def _translated(contents: Mapping[str, Any], size: int, path: Path) -> Foreign:
    state, average = contents.get("model", contents), contents.get("ema") or {}
    config = _config(_within(state, "model."), state, size, path)
    modules = _modules(len(config["network"]["multiples"]))

    def ours(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return _arranged(rename(theirs, by_module(theirs, modules, LEAVES)), config["self_conditioning"])

    ema = ours(_within(average, "ema_model.model.")) if average.get("initted", False) else None
    return Foreign(config, ours(_within(state, "model.")), ema, step=int(contents.get("step", 0)))


def _within(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _config(network: Mapping[str, Tensor], state: Mapping[str, Tensor], size: int, path: Path) -> dict[str, Any]:
    levels = len({name.split(".")[1] for name in network if name.startswith("downs.")})
    width, channels = network["time_mlp.1.weight"].shape[1], network["final_conv.weight"].shape[0]
    below = [network[f"ups.{level}.0.block1.proj.weight"].shape[0] for level in reversed(range(levels))]
    heads, _, head_width = network["mid_attn.mem_kv"].shape[1:]
    prediction, gamma = _objective(state, path)
    weighting = choice("weighting", "simple") if gamma is None else choice("weighting", "min_snr") | {"gamma": gamma}
    return {
        "network": choice("network", "unet_lucid")
        | {
            "width": width,
            "multiples": [out // width for out in below],
            "full_attention": [f"downs.{level}.2.to_out.weight" in network for level in range(levels)],
            "heads": heads,
            "head_width": head_width,
        },
        "schedule": _schedule(state["betas"]),
        "prediction": choice("prediction", prediction),
        "loss": choice("loss", "l2"),
        "weighting": weighting,
        "clipping": choice("clipping", "static"),
        "sampler": choice("sampler", "ddpm"),
        "dataset": {"channels": channels, "size": size},
        "conditioning": {},
        "self_conditioning": network["init_conv.weight"].shape[1] == 2 * channels,
    }


def _schedule(betas: Tensor) -> dict[str, Any]:
    """The config of our schedule with these betas: by name if a default schedule of theirs has them."""
    for name in SCHEDULES:
        config = choice("schedule", name) | {"T": len(betas)}
        schedule = build.schedule(config)
        if isinstance(schedule, Table) and torch.allclose(schedule.betas, betas.double(), rtol=3e-5, atol=0):
            return config
    return choice("schedule", "table") | {"betas": betas.tolist()}


def _objective(state: Mapping[str, Tensor], path: Path) -> tuple[str, float | None]:
    """The prediction, and the gamma of min-SNR weighting if it was used."""
    snr = state["alphas_cumprod"].double() / (1 - state["alphas_cumprod"].double())
    weight = state["loss_weight"].double()
    k = (snr.log() - math.log(0.5)).abs().argmin()  # below any usual gamma, and where the three differ
    for name, of in OBJECTIVES.items():
        if torch.isclose(weight[k], of(snr)[k], rtol=1e-3):
            clipped = (weight / of(snr) * snr).max().item()
            return name, None if clipped > 0.99 * snr.max() else float(f"{clipped:.3g}")
    raise UserError(f"{path}: loss_weight matches no objective among {', '.join(OBJECTIVES)}")


def _modules(levels: int) -> dict[str, str]:
    """Their modules -> ours."""
    blocks = {"mid_block1": "middle.0", "mid_attn": "middle.1", "mid_block2": "middle.2", "final_res_block": "last"}
    parts = {"0": "first", "1": "second", "2": "attention", "3": "resample", "3.1": "resample.1"}
    for side in ("down", "up"):
        for level in range(levels):
            blocks |= {f"{side}s.{level}.{part}": f"{side}.{level}.{ours}" for part, ours in parts.items()}
    inside = RESIDUAL | ATTENTION
    return ENDS | {
        f"{theirs}.{part}".rstrip("."): f"{ours}.{our_part}".rstrip(".")
        for theirs, ours in blocks.items()
        for part, our_part in inside.items()
    }


def _arranged(weights: dict[str, Tensor], self_conditioning: bool) -> dict[str, Tensor]:
    """Tensors with our names, converted to our layout."""
    arranged = {}
    for name, tensor in weights.items():
        if ".norm" in name:
            tensor = tensor.flatten()
        if name.endswith(".memory") and name.replace("memory", "norm_out.weight") in weights:
            tensor = tensor.transpose(2, 3)  # linear attention
        if name == "conv_in.weight" and self_conditioning:
            tensor = tensor.roll(tensor.shape[1] // 2, dims=1)  # theirs takes x_0 first, then x_t
        arranged[name] = tensor
    return arranged
