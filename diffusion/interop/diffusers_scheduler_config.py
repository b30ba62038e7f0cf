"""Conversion of diffusers' `DDPMScheduler` config to and from our schedule, prediction, clipping and variance."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from diffusion import clipping
from diffusion.ground.errors import UserError
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs.groups import choice
from diffusion.schedule import Schedule

# The defaults of their constructor, for options that a scheduler_config.json omits.
DEFAULTS = {
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
# The only values of their other options that we can express, the default first.
ONLY = {
    "clip_sample_range": (1,),
    "predict_epsilon": (True,),
    "set_alpha_to_one": (True,),
    "steps_offset": (0,),
    "tensor_format": ("pt", "np"),
}
SAMPLERS = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim"}
_PREDICTIONS = {"epsilon": "eps", "sample": "x_0", "v_prediction": "v"}
_VARIANCES = {  # theirs -> ours
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",
    "fixed_large": "fixed_large",
    "learned_range": "learned",
}
_Value = TypeVar("_Value")
_SPACINGS = ("leading", "trailing", "linspace")
_NO_BOUND = 1e6  # in place of an upper bound, which their dynamic thresholding has and ours has not


def nodes_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes of schedule, prediction, variance and clipping for the config of a scheduler."""
    prediction = _one_of(config, "prediction_type", _PREDICTIONS)
    variance = _one_of(config, "variance_type", _VARIANCES)
    times = _one_of(config, "timestep_spacing", dict(zip(_SPACINGS, _SPACINGS, strict=True)))
    sampler = choice("sampler", SAMPLERS[config.get("_class_name", "DDPMScheduler")])
    process = {
        "schedule": _schedule(config),
        "prediction": choice("prediction", prediction),
        "sampler": sampler | {"times": times} | ({"variance": variance} if "variance" in sampler else {}),
        "clipping": _clipping(config),
    }
    if variance == "learned":
        process["loss"] = choice("loss", "hybrid")
    if config["rescale_betas_zero_snr"]:
        process["weighting"] = choice("weighting", "snr")
    return process


def _one_of(config: Mapping[str, Any], name: str, table: Mapping[str, _Value]) -> _Value:
    if config[name] not in table:
        raise UserError(f"{name}={config[name]} cannot be expressed, only {', '.join(table)}")
    return table[config[name]]


def _schedule(config: Mapping[str, Any]) -> dict[str, Any]:
    """The node of the schedule: one of ours if it is equal, else the table of betas."""
    T, kind = config["num_train_timesteps"], config["beta_schedule"]
    ends = {"beta_start": config["beta_start"], "beta_end": config["beta_end"]}
    terminal = {"zero_terminal_snr": config["rescale_betas_zero_snr"]}
    if config["trained_betas"] is not None:
        return {**choice("schedule", "table"), "betas": config["trained_betas"], **terminal}
    if kind == "squaredcos_cap_v2":
        return {**choice("schedule", "cosine"), "T": T, **terminal}
    if kind in ("linear", "scaled_linear") and T == 1000:
        return {**choice("schedule", kind), **ends, **terminal}
    first, last = ends.values()
    curves = {
        "linear": torch.linspace(first, last, T, dtype=torch.float64),
        "scaled_linear": torch.linspace(first**0.5, last**0.5, T, dtype=torch.float64) ** 2,
        "sigmoid": torch.sigmoid(torch.linspace(-6, 6, T, dtype=torch.float64)) * (last - first) + first,
    }
    betas = _one_of(config, "beta_schedule", curves)
    return {**choice("schedule", "table"), "betas": betas.tolist(), **terminal}


def _clipping(config: Mapping[str, Any]) -> dict[str, Any]:
    if not config["thresholding"]:
        return choice("clipping", "static" if config["clip_sample"] else "none")
    if config["sample_max_value"] == 1:  # their percentile is clamped to it, so it is always 1
        return choice("clipping", "static")
    if config["sample_max_value"] < _NO_BOUND:
        raise UserError(f"sample_max_value={config['sample_max_value']} cannot be expressed, only 1 or {_NO_BOUND:g}")
    return {**choice("clipping", "dynamic"), "percentile": config["dynamic_thresholding_ratio"]}


def config_of(model: LitDiffusion) -> dict[str, Any]:
    """The config of the DDPMScheduler with the model's schedule, prediction, variance and clipping."""
    config, schedule = model.config, model.denoiser.schedule
    kind = config["prediction"]["_target_"]
    predictions = {choice("prediction", ours)["_target_"]: theirs for theirs, ours in _PREDICTIONS.items()}
    if kind not in predictions:
        raise UserError(f"to=diffusers: a DDPMScheduler has no prediction {kind.rpartition('.')[2]}")
    times, variance = config["sampler"].get("times"), _variance(model)
    if times not in _SPACINGS:
        times = "trailing"
    if times == "trailing" and variance != "fixed_small":
        times = "leading"  # otherwise theirs adds noise to x_0, if the last step does not begin at t = 1
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": schedule.T,
        **_betas(config["schedule"], schedule),
        "prediction_type": predictions[kind],
        "variance_type": variance,
        **_clipping_config(model.clip),
        "timestep_spacing": times,
    }


def _betas(node: Mapping[str, Any], schedule: Schedule) -> dict[str, Any]:
    """Their options for a schedule: its name if they have one, else all betas."""
    for theirs, ours in {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}.items():
        named = choice("schedule", ours)
        ends = {key: node[key] for key in ("beta_start", "beta_end") if key in named and key in node}
        if node == {**named, **ends}:
            return {"beta_schedule": theirs, **ends}
    k = torch.arange(1, schedule.T + 1)
    return {"trained_betas": schedule.beta(k - 1, k).tolist()}


def _variance(model: LitDiffusion) -> str:
    """Their variance_type for the sampler in the model's config; fixed_small for samplers that are not ancestral."""
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
