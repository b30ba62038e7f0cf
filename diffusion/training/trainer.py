"""Config -> Lightning's Trainer, with the callbacks of a run."""

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import DeepSpeedStrategy

from diffusion.config import registry
from diffusion.config.value_types import Count, Natural, NonNegative, Positive, Precision
from diffusion.ground import launch
from diffusion.ground.errors import UserError
from diffusion.optimization import snapshots
from diffusion.runs import build, checkpoint
from diffusion.training import strategies
from diffusion.training.cadence import Cadence
from diffusion.training.callbacks.checkpoints import Checkpoints
from diffusion.training.callbacks.duration_estimate import Forecast
from diffusion.training.callbacks.ema import EMA
from diffusion.training.callbacks.guards import GradientGuard, RangeGuard
from diffusion.training.callbacks.pictures import Pictures
from diffusion.training.callbacks.progress import Progress
from diffusion.training.callbacks.validations import Validations


class TrainerKeys(TypedDict):
    """The keys of conf/trainer/."""

    max_steps: Count | None
    max_minutes: Positive | None
    max_epochs: Count | None
    precision: Precision
    gradient_clip: NonNegative
    max_skipped: Count
    accumulate: Count
    log_every_n_steps: Count
    overfit_batches: Natural


def callbacks(config: Mapping[str, Any], run_folder: Path) -> dict[str, Callback]:
    """The callbacks of a run in their order: the mandatory ones, by class name, then those of config's `callbacks`, by
    key."""
    validations = Validations(Cadence.of(config["validate"]))
    named = _named(config, run_folder, validations)
    cadences = [each.cadence for each in named.values() if isinstance(each, Pictures) and each.cadence]
    validations.preview = next((cadence for cadence in cadences if cadence.given), Cadence())
    fixed: list[Callback] = [
        validations,
        Progress(),
        Forecast(),
        RangeGuard(),
        GradientGuard(config["trainer"]["gradient_clip"], config["trainer"]["max_skipped"]),
        Checkpoints(run_folder / "checkpoints", **config["checkpoints"]),
    ]
    profiles = build.instantiate(config["ema"])
    if profiles.names:
        batch_size = config["dataset"]["batch_size"] * config["trainer"]["accumulate"]
        fixed.append(EMA(profiles, batch_size, run_folder / "checkpoints" / snapshots.FOLDER))
    return {type(each).__name__: each for each in fixed} | named


def _named(config: Mapping[str, Any], run_folder: Path, validations: Validations) -> dict[str, Callback]:
    """Builds config's `callbacks`, without those that draw no images (n=0). A constructor receives those of the offered
    arguments that it accepts."""
    offered = {
        "run_folder": run_folder,
        "samples": run_folder / "samples",
        "validations": validations,
        "seed": config["seed"],
    }
    nodes = {name: node for name, node in config["callbacks"].items() if node.get("n") != 0}
    if strategies.is_sharded(config["strategy"]):
        drawn = [name for name, node in nodes.items() if _runs_network(node)]
        if drawn:
            launch.say(
                f"no previews ({', '.join(drawn)}): they need the whole network in one process, and this strategy "
                "shards it"
            )
        nodes = {name: node for name, node in nodes.items() if name not in drawn}
    return {f"callbacks.{name}": build.instantiate(node, offered) for name, node in nodes.items()}


def _runs_network(node: Mapping[str, Any]) -> bool:
    return getattr(registry.class_at(node.get(registry.TARGET)), "runs_network", False)


def make_trainer(config: Mapping[str, Any], run_folder: Path, callbacks: Iterable[Callback]) -> Trainer:
    """The Trainer of a resolved config, for the run in `run_folder`, without loggers.

    Raises UserError for unavailable hardware.
    """
    trainer, plan = config["trainer"], strategies.HARDWARE | config["strategy"]
    minutes, clip = trainer["max_minutes"], trainer["gradient_clip"] or None
    try:
        made = Trainer(
            accelerator=plan["accelerator"],
            devices=plan["devices"],
            strategy=strategies.strategy(plan),
            num_nodes=plan["num_nodes"],
            precision=precision(trainer["precision"], plan["accelerator"]),
            max_steps=trainer["max_steps"] or -1,
            max_epochs=trainer["max_epochs"] or -1,
            max_time=None if minutes is None else timedelta(minutes=minutes),
            # DeepSpeed hides its gradients; for all others GradientGuard clips.
            gradient_clip_val=clip if strategies.is_sharded(plan, DeepSpeedStrategy) else None,
            accumulate_grad_batches=trainer["accumulate"],
            log_every_n_steps=trainer["log_every_n_steps"],
            overfit_batches=trainer["overfit_batches"],
            num_sanity_val_steps=1,
            logger=False,
            callbacks=[*callbacks],
            plugins=[checkpoint.AtomicCheckpointIO()],
            use_distributed_sampler=False,  # the data module shards the data itself
            enable_model_summary=False,
            default_root_dir=run_folder,
        )
    except UserError:
        raise
    except (MisconfigurationException, ValueError, TypeError, ModuleNotFoundError) as error:
        raise UserError(
            f"strategy {strategies.name(plan)} on {plan['devices']} x {plan['accelerator']}: "
            f"{' '.join(str(error).split())}; strategy=auto uses the available hardware"
        ) from error
    launch.check_count(made)
    cores = os.cpu_count() or 1
    if isinstance(made.accelerator, CPUAccelerator) and made.num_devices > max(2, cores):  # two, to try a strategy
        raise UserError(f"strategy.devices={made.num_devices}: one process per device, but the CPU has {cores} cores")
    return made


def precision(
    asked: Precision, accelerator: str
) -> Literal["32-true", "64-true", "bf16-true", "bf16-mixed", "16-mixed", "32", "64", "bf16", "16"]:
    """Resolves `auto`. Raises UserError for a precision that the hardware does not support."""
    if asked == "auto":
        gpu = accelerator != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return "bf16-mixed" if gpu else "32-true"
    gpu, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if asked in ("16-mixed", "16") and (accelerator == "cpu" or not (gpu or mps)):
        raise UserError(f"trainer.precision={asked}: float16 needs a GPU; on a CPU use bf16-mixed or 32-true")
    if asked in ("64-true", "64") and accelerator != "cpu" and mps:
        raise UserError(f"trainer.precision={asked}: this GPU has no float64; use 32-true, or strategy=cpu")
    return asked
