"""Checkpoints of OpenAI's improved-diffusion (Nichol & Dhariwal 2021) and guided-diffusion (Dhariwal & Nichol 2021).

They are state dicts of a `UNetModel`. Names and shapes of the tensors determine most of the network; the rest are
options, which are known for the published models. The network is our UNet: only names and layout of weights differ.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from diffusion.ground.errors import UserError, reading
from diffusion.interop.foreign import Foreign, by_module, fit, load, rename
from diffusion.runs import build
from diffusion.runs.groups import choice

# Their modules -> ours, inside a residual block, inside an attention, and at the ends of the network.
RESIDUAL = {
    "in_layers.0": "norm_1",
    "in_layers.2": "conv_1",
    "emb_layers.1": "embedding",
    "out_layers.0": "norm_2",
    "out_layers.3": "conv_2",
    "skip_connection": "shortcut",
}
ATTENTION = {"norm": "norm", "qkv": "qkv", "proj_out": "out"}
ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "conditioners.label",
    "input_blocks.0.0": "conv_in",
    "out.0": "norm_out",
    "out.2": "conv_out",
}
SIZES = {  # image size by the multiples of the base width of the levels, which are fixed pairs in their code
    (1, 2, 2, 2): 32,
    (1, 2, 3, 4): 64,
    (1, 1, 2, 3, 4): 128,
    (1, 1, 2, 2, 4, 4): 256,
    (0.5, 1, 1, 2, 2, 4, 4): 512,
}


@dataclass(frozen=True)
class Options:
    """Options that no tensor determines. None: unknown.

    schedule: linear or cosine. heads or head_width: of attention. order: of q, k, v and the heads in the rows of
    `qkv`: heads_first, or qkv_first (their use_new_attention_order). rescale_timesteps: whether the network takes
    t * 1000 / T.
    """

    schedule: str | None = None
    T: int | None = None
    heads: int | None = None
    head_width: int | None = None
    order: str = "heads_first"
    rescale_timesteps: bool = False


@dataclass(frozen=True)
class Layout:
    """The properties of the network that the tensors determine."""

    channels: int
    learns_variance: bool
    classes: int | None
    time_width: int
    widths: tuple[int, ...]
    layers: int
    attended: tuple[bool, ...]
    scale_shift: bool
    residual_resampling: bool


# The published models with learned variance: (size, time_width, layers, residual_resampling, whether it has classes)
PUBLISHED = {
    (32, 128, 3, False, False): Options("cosine", 4000, heads=4, rescale_timesteps=True),
    (64, 128, 3, False, False): Options("cosine", 4000, heads=4, rescale_timesteps=True),
    (64, 192, 3, False, True): Options("cosine", 4000, heads=4),
    (256, 128, 2, False, False): Options("linear", 1000, heads=1),
    (64, 192, 3, True, True): Options("cosine", 1000, head_width=64, order="qkv_first"),
    (128, 256, 2, True, True): Options("linear", 1000, heads=4),
    (256, 256, 2, True, True): Options("linear", 1000, head_width=64),
    (256, 256, 2, True, False): Options("linear", 1000, head_width=64),
    (512, 256, 2, True, True): Options("linear", 1000, head_width=64),
}


def recognises(path: Path, contents: Any) -> bool:
    """Whether the contents are a state dict with the names of a `UNetModel` or of a related network."""
    names = {"time_embed.0.weight", "input_blocks.0.0.weight"}
    return isinstance(contents, Mapping) and names <= contents.keys()


def read(
    path: Path,
    *,
    size: int | None = None,
    schedule: str | None = None,
    T: int | None = None,
    heads: int | None = None,
    head_width: int | None = None,
    order: str | None = None,
    rescale_timesteps: bool | None = None,
) -> Foreign:
    """The model of a file such as `64x64_diffusion.pt` or `ema_0.9999_200000.pt`.

    size: of the images; known if the widths are in SIZES. The other arguments are those of `Options`, known for the
    models in PUBLISHED; given values take precedence. The prediction is eps; the variance is learned if there are
    channels for it, else `fixed_large`, as in their code. A network with classes was trained only with classes: the
    embedding of no class is the mean of all classes.

    Raises: UserError for a file that cannot be read or is of another network, and for missing or wrong arguments.
    """
    state = load(path)
    if not recognises(path, state):
        raise UserError(f"{path}: not a UNet of improved-diffusion or guided-diffusion (no time_embed, input_blocks)")
    arguments = {"schedule": schedule, "T": T, "heads": heads, "head_width": head_width, "order": order}
    with reading(path, "a UNet of improved-diffusion or guided-diffusion"):
        layout = _layout(state, path)
        size = size or SIZES.get(tuple(width / layout.time_width for width in layout.widths))
        options = _options(layout, size, arguments | {"rescale_timesteps": rescale_timesteps}, path)
        assert size is not None  # see _options
        config = _config(layout, size, options)
        with torch.device("meta"):  # rejects invalid numbers of heads before the weights are split by them
            ours = build.instantiate(
                config["network"],
                in_channels=layout.channels,
                out_channels=layout.channels * (2 if layout.learns_variance else 1),
                size=size,
                conditioners=build.conditioners(config),
            )
        weights = rename(state, by_module(state, _modules(layout)))
        return Foreign(config, fit(_arranged(weights, options), ours.state_dict()))


def _layout(state: Mapping[str, Tensor], path: Path) -> Layout:
    """The layout of the network from names and shapes; UserError if they are not those of a `UNetModel`."""
    if "out.2.weight" not in state or "output_blocks.0.0.in_layers.2.weight" not in state:
        raise UserError(f"{path}: a classifier, or incomplete (no output_blocks): only diffusion models can be read")
    channels, out_channels = state["input_blocks.0.0.weight"].shape[1], state["out.2.weight"].shape[0]
    if channels not in (1, 3) or out_channels not in (channels, 2 * channels):
        raise UserError(
            f"{path}: {channels} channels in and {out_channels} out: an upsampler or another network with more inputs "
            "than x_t, which is not supported"
        )
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("output_blocks."))
    # The last block of each level of the up path ends with a second residual block, or with a convolution.
    resamplers = [
        name for name in state if re.fullmatch(r"output_blocks\.\d+\.[12]\.(conv|in_layers\.2)\.weight", name)
    ]
    levels = 1 + len(resamplers)
    layers = blocks // levels - 1
    firsts = [f"input_blocks.{1 + level * (layers + 1)}" for level in range(levels)]
    if blocks % levels or not all(f"{first}.0.in_layers.2.weight" in state for first in firsts):
        raise UserError(f"{path}: {blocks} output_blocks on {levels} levels: not a UNet of OpenAI with convolutions")
    widths = tuple(state[f"{first}.0.in_layers.2.weight"].shape[0] for first in firsts)
    return Layout(
        channels=channels,
        learns_variance=out_channels == 2 * channels,
        classes=len(state["label_emb.weight"]) if "label_emb.weight" in state else None,
        time_width=state["time_embed.0.weight"].shape[1],
        widths=widths,
        layers=layers,
        attended=tuple(f"{first}.1.qkv.weight" in state for first in firsts),
        scale_shift=state[f"{firsts[0]}.0.emb_layers.1.weight"].shape[0] == 2 * widths[0],
        residual_resampling=any("in_layers" in name for name in resamplers),
    )


def _options(layout: Layout, size: int | None, arguments: dict[str, Any], path: Path) -> Options:
    """The given options, completed by those of a published model; UserError if some are still unknown."""
    given = {name: value for name, value in arguments.items() if value is not None}
    key: Any = (size, layout.time_width, layout.layers, layout.residual_resampling, layout.classes is not None)
    known = PUBLISHED.get(key, Options()) if layout.learns_variance else Options()
    if "heads" in given or "head_width" in given:
        known = replace(known, heads=None, head_width=None)
    options = replace(known, **given)
    missing = [name for name, value in (("size", size), ("schedule", options.schedule), ("T", options.T)) if not value]
    if not (options.heads or options.head_width):
        missing.append("heads (or head_width)")
    if missing:
        raise UserError(
            f"{path}: not a published model, and the weights do not determine {', '.join(missing)}: set each, such as "
            "T=1000"
        )
    if known in PUBLISHED.values() and not given:
        rank_zero_info(
            f"{path}: has the shape of a published model, so these options are assumed: {_overrides(options)}; set "
            "them if they differ"
        )
    if options.schedule not in ("linear", "cosine"):
        raise UserError(f"schedule={options.schedule}: expected linear or cosine, the only schedules of these programs")
    if options.order not in ("heads_first", "qkv_first"):
        raise UserError(f"order={options.order}: expected heads_first, or qkv_first (use_new_attention_order)")
    return options


def _overrides(options: Options) -> str:
    return " ".join(f"{name}={value}" for name, value in asdict(options).items() if value is not None)


def _config(layout: Layout, size: int, options: Options) -> dict[str, Any]:
    network = choice("network", "unet_adm") | {
        "widths": list(layout.widths),
        "layers": layout.layers,
        "attention": [size // 2**level for level, attended in enumerate(layout.attended) if attended],
        "dropout": 0.0,
        "heads": options.heads if options.heads != 1 else None,
        "head_width": options.head_width,
        "scale_shift": layout.scale_shift,
        "residual_resampling": layout.residual_resampling,
        "time_width": layout.time_width if layout.time_width != layout.widths[0] else None,
        "time_scale": 1000 / options.T if options.T and options.rescale_timesteps else 1.0,
    }
    learned = layout.learns_variance
    return {
        "network": network,
        "schedule": _schedule(options),
        "prediction": choice("prediction", "eps"),
        "loss": choice("loss", "hybrid" if learned else "l2"),
        "clipping": choice("clipping", "static"),
        "sampler": choice("sampler", "ddpm") | {"variance": "auto" if learned else "fixed_large"},
        "dataset": {"channels": layout.channels, "size": size},
        "conditioning": _conditioning(layout.classes),
        "self_conditioning": False,
    }


def _conditioning(classes: int | None) -> dict[str, Any]:
    if classes is None:
        return {}
    label = choice("conditioning", "label")["label"]
    return {"label": {**label, "classes": [str(k) for k in range(classes)], "drop": 0.0}}


def _schedule(options: Options) -> dict[str, Any]:
    assert options.T is not None  # see _options
    assert options.schedule is not None
    if options.schedule == "linear" and options.T != 1000:  # theirs scales the betas, ours resamples the same curve
        first, last = (end * 1000 / options.T for end in (1e-4, 0.02))
        return choice("schedule", "table") | {
            "betas": torch.linspace(first, last, options.T, dtype=torch.float64).tolist()
        }
    return choice("schedule", options.schedule) | {"T": options.T}


def _modules(layout: Layout) -> dict[str, str]:
    """Their modules -> ours."""
    modules = dict(ENDS)

    def residual(theirs: str, ours: str) -> None:
        modules.update({f"{theirs}.{name}": f"{ours}.{our_name}" for name, our_name in RESIDUAL.items()})

    def attention(theirs: str, ours: str) -> None:
        modules.update({f"{theirs}.{name}": f"{ours}.{our_name}" for name, our_name in ATTENTION.items()})

    def resample(theirs: str, ours: str) -> None:
        if layout.residual_resampling:
            residual(theirs, ours)
        modules.update({f"{theirs}.op": ours, f"{theirs}.conv": ours})

    levels, layers = len(layout.widths), layout.layers
    for level in range(levels):
        first = 1 + level * (layers + 1)
        for i in range(layers):
            residual(f"input_blocks.{first + i}.0", f"down.{level}.residuals.{i}")
            attention(f"input_blocks.{first + i}.1", f"down.{level}.attentions.{i}")
        resample(f"input_blocks.{first + layers}.0", f"down.{level}.resample")
    for i, (part, ours) in enumerate([(residual, "middle.0"), (attention, "middle.1"), (residual, "middle.2")]):
        part(f"middle_block.{i}", ours)
    for stage in range(levels):
        attended = layout.attended[levels - 1 - stage]
        for i in range(layers + 1):
            block = f"output_blocks.{stage * (layers + 1) + i}"
            residual(f"{block}.0", f"up.{stage}.residuals.{i}")
            if attended:
                attention(f"{block}.1", f"up.{stage}.attentions.{i}")
            if i == layers:
                resample(f"{block}.{2 if attended else 1}", f"up.{stage}.resample")
    return modules


def _arranged(weights: dict[str, Tensor], options: Options) -> dict[str, Tensor]:
    """Tensors with our names, converted to our layout."""
    arranged = {}
    for name, tensor in weights.items():
        if ".attentions." in name or name.startswith("middle.1."):
            tensor = tensor.squeeze(-1)  # a convolution over a row of tokens
        if ".qkv." in name and options.order == "heads_first":
            heads = options.heads or len(tensor) // 3 // (options.head_width or 1)
            tensor = tensor.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
        if name == "time_embedding.linear_1.weight":
            tensor = tensor.roll(tensor.shape[1] // 2, dims=1)  # theirs begins with the cosines
        if name == "conditioners.label.weight":
            tensor = torch.cat([tensor, tensor.mean(0, keepdim=True)])
        arranged[name] = tensor
    return arranged
