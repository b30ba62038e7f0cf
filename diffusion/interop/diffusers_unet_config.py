"""Conversion of diffusers' `UNet2DModel` config to and from the arguments of our UNet."""

import inspect
from collections.abc import Mapping
from typing import Any

from diffusion.config.value_parsers import read_as
from diffusion.ground.errors import UserError
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.networks.unet import UNet
from diffusion.runs.groups import choice

# The defaults of their constructor, for options that a config.json omits.
DEFAULTS = {
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
    "num_train_timesteps": None,  # only for learned time embeddings, which are not supported
}
# The only values of their other options that we can express, the default first.
ONLY = {
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
# Arguments of our UNet that their config can express; the others must have our default values.
_EXPRESSED = {
    *("in_channels", "out_channels", "size", "conditioners", "widths", "layers", "attention", "mid_attention"),
    *("head_width", "dropout", "norm_groups", "norm_eps", "freq_shift", "downsample_padding"),
}


def node_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The node of our UNet for the config of a UNet2DModel."""
    widths, size = config["block_out_channels"], config["sample_size"]
    if not isinstance(size, int):
        raise UserError(f"sample_size={size}: expected an integer, the side of square images in pixels")
    if config["time_embedding_dim"] not in (None, 4 * widths[0]):
        raise UserError(f"time_embedding_dim={config['time_embedding_dim']} cannot be expressed, only {4 * widths[0]}")
    if config["attn_norm_num_groups"] not in (None, config["norm_num_groups"]):
        raise UserError("attn_norm_num_groups cannot be expressed if it differs from norm_num_groups")
    return {
        **choice("network", "unet_ddpm"),
        "widths": widths,
        "layers": config["layers_per_block"],
        "attention": [size // 2**level for level, attends in enumerate(_attends(config, len(widths))) if attends],
        "dropout": config["dropout"],
        "head_width": config["attention_head_dim"],
        "mid_attention": config["add_attention"],
        "norm_groups": config["norm_num_groups"],
        "norm_eps": read_as(float, config["norm_eps"]),
        "freq_shift": read_as(float, config["freq_shift"]),
        "downsample_padding": config["downsample_padding"],
    }


def _attends(config: Mapping[str, Any], levels: int) -> list[bool]:
    """Whether each level has attention, the same on both sides of the U."""
    kinds = {False: ("DownBlock2D", "UpBlock2D"), True: ("AttnDownBlock2D", "AttnUpBlock2D")}
    down, up = config["down_block_types"], config["up_block_types"][::-1]
    attends = ["Attn" in kind for kind in down]
    if [*zip(down, up, strict=True)] != [kinds[one] for one in attends] or len(down) != levels:
        raise UserError(
            f"down_block_types={down}, up_block_types={config['up_block_types']}: only (Attn)DownBlock2D and (Attn)"
            f"UpBlock2D can be expressed, one for each of the {levels} levels and the same on both sides"
        )
    return attends


def config_of(model: LitDiffusion) -> dict[str, Any]:
    """The config of a UNet2DModel equal to the network of the model."""
    if not isinstance(model.denoiser.network, UNet):
        raise UserError(f"to=diffusers: {model.config['network']['_target_']} is not one of their networks")
    if model.conditioning:
        raise UserError(
            "to=diffusers: a DDPMPipeline gives its network no condition, but this one takes "
            + ", ".join(model.conditioning)
        )
    defaults = {name: parameter.default for name, parameter in inspect.signature(UNet).parameters.items()}
    node = defaults | model.config["network"]
    for name in defaults.keys() - _EXPRESSED:
        if node[name] != defaults[name]:
            raise UserError(f"to=diffusers: network.{name}={node[name]} cannot be expressed, only {defaults[name]}")
    channels, size, width = model.shape
    if size != width or not model.space.holds_pictures:
        space = type(model.space).__name__
        raise UserError(f"to=diffusers: a DDPMPipeline draws square 8-bit pictures, not {space} of {model.shape}")
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
