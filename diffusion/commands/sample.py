"""`python sample.py`: draws images from a checkpoint into a folder, and returns that folder."""

import copy
import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from diffusion import build, checkpoint, notices, registry
from diffusion.commands.compare import Comparison
from diffusion.compilation import compile_network
from diffusion.data.decoding import Limits
from diffusion.device import device_of
from diffusion.errors import UserError
from diffusion.guidance import Auto
from diffusion.lit import LitDiffusion
from diffusion.networks import native
from diffusion.quiet import quiet
from diffusion.samples import Samples
from diffusion.sampling.conditions import Asked
from diffusion.sampling.drawing import Drawing
from diffusion.weights import Weights


def run(config: DictConfig) -> Path:
    """Samples as the composed `conf/sample.yaml` says. Returns the folder, or the picture of a comparison; raises
    UserError for a user's mistake, before anything is written."""
    quiet()
    config = OmegaConf.to_container(config, resolve=True)
    native.use(config["kernels"])
    ckpt, contents = checkpoint.opened(config["ckpt"])
    model = checkpoint.trained(contents, ckpt, Weights.of(config["weights"]), device_of(config["accelerator"]))
    if config["compile"]:
        compile_network(model.denoiser.network, model.device)
    asked = Asked.read(config["y"], config["condition"], model.conditioning)
    chosen = {group: _chosen(config, model.config, group) for group in ("clipping", "guidance")}
    model.clip = build.clipping(chosen["clipping"], model.space)
    model.guidance = checkpoint.guidance(chosen["guidance"], model, contents, ckpt)
    del contents  # the optimiser's state is large
    if isinstance(model.guidance, Auto):
        chosen["guidance"]["weaker_sha256"] = checkpoint.weights_sha256(model.guidance.weaker.denoiser)
    if config["task"]["_target_"] == f"{Comparison.__module__}.{Comparison.__name__}":
        _refuse(config["given"], Comparison.UNUSED)
        work = build.instantiate(config["task"], model=model, n=config["n"])
    else:
        chosen["sampler"] = _sampler(config, model)
        model.sampler = build.instantiate(chosen["sampler"])
        work = Drawing(model, build.instantiate(config["task"], space=model.space, limits=_limits(model)), config)
    unused = {**work.unused, **_unused_guidance(model, asked, work.times)}
    _refuse(config["given"], unused)
    settings = {
        "task": {**config["task"], **_pictures(config["task"])},
        "checkpoint": str(ckpt),
        "weights": config["weights"],
        "weights_sha256": checkpoint.weights_sha256(model.denoiser),
        **chosen,
        **work.settings,
        **asked.settings(),
        "seed": config["seed"],
    }
    notices.of_pictures(model.shape[0])
    samples = Samples(_folder(config["output"], ckpt), _obeyed(settings, unused), model.space)
    with samples.writing():
        return work.draw(samples, asked, seed=config["seed"], batch_size=config["batch_size"])


def _chosen(config: Mapping[str, Any], trained: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The choice of a group: the one asked for, or that of the training with the values asked for."""
    node = config[group] or trained[group]
    unknown = set(config["overrides"][group]) - set(node)
    if unknown:
        known = ", ".join(f"{group}.{key}" for key in node if key != "_target_") or "none"
        raise UserError(f"{group}.{unknown.pop()}: the checkpoint's {group} has no such key; it has {known}")
    return {**node, **config["overrides"][group]}


def _sampler(config: Mapping[str, Any], model: LitDiffusion) -> dict[str, Any]:
    node = _chosen(config, model.config, "sampler")
    return node if "sampler.steps" in config["given"] else build.with_steps_of(model.denoiser.schedule, node)


def _limits(model: LitDiffusion) -> Limits | None:
    """The values that became black and white in the files of the training, None where their type decided."""
    found = model.config["dataset"].get("range")
    return (found[0], found[1]) if isinstance(found, list) else None


def _pictures(task: Mapping[str, Any]) -> dict[str, str]:
    """What tells the pictures that a task is given from others under the same names."""
    files = {key: Path(value) for key, value in task.items() if isinstance(value, str) and Path(value).is_file()}
    return {f"{key}_sha256": hashlib.sha256(file.read_bytes()).hexdigest() for key, file in files.items()}


def _unused_guidance(model: LitDiffusion, asked: Asked, times: Tensor) -> dict[str, str]:
    if missing := model.guidance.needs(asked.condition(torch.arange(1))):
        return {"guidance": missing}
    return model.guidance.unused(model.denoiser.schedule, times)


def _refuse(given: Iterable[str], unused: Mapping[str, str]) -> None:
    """Raises UserError where a key of the command line has no effect. unused: such keys or sections, and why."""
    for key in given:
        for name in (key, key.partition(".")[0]):
            if name in unused:
                raise UserError(f"{key} has no effect: {unused[name]}")


def _obeyed(settings: Mapping[str, Any], unused: Mapping[str, str]) -> dict[str, Any]:
    """The settings as samples.json holds them, without what has no effect."""
    obeyed = copy.deepcopy(dict(settings))
    for node in (*obeyed.values(), *obeyed.get("samplers", {}).values()):
        if isinstance(node, dict):
            registry.name_class(node)
    for name in unused:
        section, _, key = name.partition(".")
        if key and section in obeyed:
            obeyed[section].pop(key, None)
        elif not key:
            obeyed.pop(section, None)
    return obeyed


def _folder(output: str | None, ckpt: Path) -> Path:
    if output:
        return Path(output)
    return checkpoint.run_folder(ckpt) / "generated" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
