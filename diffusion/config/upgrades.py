"""Upgrades checkpoints, snapshots, converted files and manifests of earlier versions to the current format.

Each file has the number of its format. A step of the table below converts its contents from one format to the next: it
renames moved names (in the config, the weights, the averages, the optimiser state), and writes every new key with the
value of the old behaviour, so that a later change of a default never changes an old model or a resumed run.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffusion.config import conf_folders, registry
from diffusion.ground.errors import UserError, reading

KEY = "format"  # of the contents; format 0 has no such key
_MADE_WITH = "config_dir"  # shown in the message for a missing part; nothing is read from there

# All classes of format 0, by import path; the modules are those of that version.
_PATHS_OF_0 = {
    f"diffusion.{module}.{name}"
    for module, names in {
        "averages": "Decay HalfLife Power",
        "clipping": "Dynamic Static Unclipped",
        "data.digits": "Digits",
        "data.image_folder": "ImageFolder",
        "data.torchvision_sets": "CIFAR10 FashionMNIST MNIST",
        "guidance": "Guidance",
        "losses.objective": "Huber Hybrid L1 L2 VLB",
        "losses.timesteps": "LogNormal LossSecondMoment Stratified Uniform",
        "losses.weighting": "MinSNR P2 SNR Sigmoid Simple VLB",
        "networks.lucid": "LucidUNet",
        "networks.unet": "UNet",
        "optimizers": "AdamW Constant Cosine InverseSqrt",
        "prediction": "EDM Eps V X0",
        "samplers.ddim": "DDIM",
        "samplers.ddpm": "DDPM",
        "samplers.dpm_solver_pp": "DPMSolverPP",
        "samplers.euler": "Euler",
        "samplers.heun": "Heun",
        "samplers.unipc": "UniPC",
        "schedule": "Cosine Table VP cosine laplace linear quadratic scaled_linear sigmoid",
    }.items()
    for name in names.split()
}


def _from_0(contents: dict[str, Any]) -> None:
    """Format 0 named classes by import path, and had the optimiser's state by position."""
    config = contents["config"]
    config["space"] = {registry.CLASS: "Pixels"}  # there was no other
    for _, node in registry.nodes(config):
        if registry.TARGET in node:
            path = node.pop(registry.TARGET)
            if not isinstance(path, str) or path not in _PATHS_OF_0:
                raise UserError(f"the config names {path!r}, which no file of conf/ names: it is not built")
            node[registry.CLASS] = path.rpartition(".")[2]
    _behave_as_0(config)
    _rename_weights(contents, _name_from_0)
    names = list(contents.get("state_dict", {}))  # its networks had no buffers: these are the parameters, in order
    for state in contents.get("optimizer_states", []):
        state["state"] = {names[position]: value for position, value in state["state"].items()}
        for group in state["param_groups"]:
            group["params"] = [names[position] for position in group["params"]]


def _name_from_0(name: str) -> str:
    """The current name of a weight."""
    return name.replace(".label_embedding.", ".conditioners.label.")


def _rename_weights(contents: dict[str, Any], rename: Callable[[str], str]) -> None:
    """Renames the weights, and every average of them, to their current names, in the same order."""
    averages = contents.get("averages")
    each = averages.values() if isinstance(averages, dict) else ()
    for weights in (contents.get("state_dict"), contents.get("ema_state_dict"), *each):
        if isinstance(weights, dict):
            renamed = {rename(name): tensor for name, tensor in weights.items()}
            weights.clear()
            weights.update(renamed)


def _behave_as_0(config: dict[str, Any]) -> None:
    """Writes the keys that format 0 did not have, with the values of its behaviour."""
    dataset = config.get("dataset")
    if isinstance(dataset, dict) and dataset.get(registry.CLASS) == "ImageFolder":
        dataset |= {"split": "permutation", "range": "container"}
    for _, node in registry.nodes(config):
        if node.get("times") in ("log_snr", "karras"):  # from T to 1, however much of it is noise
            node["times"] += "_full"
    if "self_conditioning" in config:
        config["self_conditioning_clipping"] = None  # that of sampling
    if "compile" in config:  # its key for our kernels
        config |= {"kernels": "auto" if config["compile"] else False, "compile": False}
    _conditions_from_0(config)
    _cadences_from_0(config)
    _learning_rate_from_0(config)


def _conditions_from_0(config: dict[str, Any]) -> None:
    """A label was the only condition, and guidance was classifier-free."""
    conditioning, guidance = config.get("conditioning"), config.get("guidance")
    if isinstance(conditioning, dict):
        classes = conditioning.get("classes")
        label = {registry.CLASS: "Label", "classes": classes, "drop": conditioning.get("drop", 0.0)}
        config["conditioning"] = {"label": label} if classes else {}
    if isinstance(guidance, dict) and guidance.get(registry.CLASS) == "Guidance":
        guidance[registry.CLASS] = "ClassifierFree"


def _cadences_from_0(config: dict[str, Any]) -> None:
    """Validations were only counted in epochs."""
    trainer = config.get("trainer")
    if not isinstance(trainer, dict) or "val_every_n_epochs" not in trainer:
        return  # a model that was not trained here
    never = {"every_n_steps": None, "every_n_minutes": None}
    config["validate"] = {**never, "every_n_epochs": trainer.pop("val_every_n_epochs")}
    config["checkpoints"] = {**config.get("checkpoints", {}), "every_n_epochs": None}


def _learning_rate_from_0(config: dict[str, Any]) -> None:
    """Format 0 never shortened a warm-up. Its cosine ended with max_steps, for any limit of the run: that is the end of
    the run, if no other limit is earlier."""
    rate, trainer = config.get("lr_schedule"), config.get("trainer")
    if isinstance(config.get("optimizer"), dict):
        config["optimizer"]["warmup_share"] = None
    if not isinstance(rate, dict) or not isinstance(trainer, dict):
        return
    limits = [trainer.get(name) for name in ("max_steps", "max_minutes", "max_epochs")]
    if rate.get(registry.CLASS) == "Cosine" and limits == [rate.get("steps"), None, None]:
        rate["steps"] = None


# A strategy of format 1, by its name in Lightning -> its class and arguments.
_STRATEGIES_OF_1 = {
    "auto": {},
    "ddp": {registry.CLASS: "DDPStrategy", "find_unused_parameters": False},
    "ddp_find_unused_parameters_true": {registry.CLASS: "DDPStrategy", "find_unused_parameters": True},
    "fsdp": {registry.CLASS: "FSDPStrategy", "sharding_strategy": "FULL_SHARD", "cpu_offload": False},
    **{f"deepspeed_stage_{stage}": {registry.CLASS: "DeepSpeedStrategy", "stage": stage} for stage in (1, 2, 3)},
}

# The current name of the class Cosine of each group.
_COSINES_OF_1 = {"schedule": "ContinuousCosine", "lr_schedule": "CosineDecay"}


def _from_1(contents: dict[str, Any]) -> None:
    """Format 1 had a single logger, built-in pictures, and a strategy by its name in Lightning, all of them also in
    checkpoints. They belong to the run: format 2 has them only in the manifest. Two classes had the name Cosine.
    kernels was also true or false."""
    config = contents["config"]
    for key, cls in _COSINES_OF_1.items():
        if isinstance(config.get(key), dict) and config[key].get(registry.CLASS) == "Cosine":
            config[key][registry.CLASS] = cls
    for key in "preview", "logger":
        config.pop(key, None)
    if "kernels" in config:  # auto, true or false
        config["kernels"] = "auto" if config["kernels"] else "off"
    strategy = config.pop("strategy", None)
    if "sessions" in contents and isinstance(strategy, dict):  # a manifest
        name = strategy.pop("strategy", "auto")
        if name not in _STRATEGIES_OF_1:
            raise UserError(f"strategy.strategy={name} of format 1 no longer exists: choose another strategy")
        config["strategy"] = {**strategy, **_STRATEGIES_OF_1[name]}


_STEPS: tuple[Callable[[dict[str, Any]], None], ...] = (_from_0, _from_1)
_NAMES: tuple[Callable[[str], str], ...] = (_name_from_0, str)  # the renaming of weights in each step
FORMAT = len(_STEPS)  # what this version writes


def stamped(config: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of every file with a config: the number of its format, the config, and the user's folder of yaml
    files, if there was one."""
    user = conf_folders.user()
    return {KEY: FORMAT, "config": registry.named(config), **({} if user is None else {_MADE_WITH: str(user)})}


def upgraded(contents: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """`contents` (format, config, ...) of the file `source` as this version would have written it, its config ready to
    be built. Tensors are shared, not copied.

    Raises UserError for a format of a later version, and for a config that names unknown classes.
    """
    number, copy = _number(contents, source), _copied({**contents})
    with reading(source, "a file of this program"):  # a hand-made file may hold anything
        for step in _STEPS[number:]:
            step(copy)
    made_with = copy.get(_MADE_WITH)
    hint = f"; it was made with --config-dir {made_with}" if isinstance(made_with, str) else ""
    return {**copy, KEY: FORMAT, "config": registry.resolved(copy["config"], source, hint)}


def snapshot(contents: Mapping[str, Any], source: object) -> dict[str, Any]:
    """`contents` (format, averages, ...) of a file of averages without a config, as this version would have written it.

    Raises UserError for a format of a later version.
    """
    number, copy = _number(contents, source), _copied({**contents})
    for rename in _NAMES[number:]:
        _rename_weights(copy, rename)
    return {**copy, KEY: FORMAT}


def _number(contents: Mapping[str, Any], source: object) -> int:
    number = contents.get(KEY, 0)
    if not isinstance(number, int) or not 0 <= number <= FORMAT:
        raise UserError(f"{source}: format {number}, but this version reads up to {FORMAT}: update the program")
    return number


def _copied(value: Any) -> Any:
    """Copies containers, so that a step may change them, but not their leaves."""
    if isinstance(value, dict):
        return type(value)((key, _copied(one)) for key, one in value.items())
    return [_copied(one) for one in value] if isinstance(value, list) else value
