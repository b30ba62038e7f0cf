"""`python train.py`: builds what the config says, trains it in a run folder, and returns that folder."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from diffusion import build, checkpoint, runs
from diffusion.callbacks.checkpoints import Checkpoints
from diffusion.callbacks.ema import EMA
from diffusion.callbacks.guards import FiniteGuard, RangeGuard
from diffusion.callbacks.preview import Preview
from diffusion.callbacks.progress import Progress
from diffusion.errors import UserError
from diffusion.loggers import build_loggers
from diffusion.quiet import quiet


def run(config: DictConfig) -> Path:
    """Trains as the composed `conf/train.yaml` says. Returns the run folder; raises UserError for a user's mistake."""
    quiet()
    config = OmegaConf.to_container(config, resolve=True)
    model = build.model(config)
    data = build.instantiate(config["dataset"], seed=config["seed"])
    folder, ckpt = runs.locate(config)
    if ckpt and _finished(config, checkpoint.read(ckpt), ckpt):
        return folder
    trainer = make_trainer(config, folder)
    # What can be wrong is found out before there is a run folder.
    for sampler in (model.sampler, build.instantiate(config["preview"]["sampler"])):
        sampler.times(model.denoiser.schedule)
    if trainer.is_global_zero:
        data.prepare_data()
        data.split("train")
    runs.create(folder, config)
    trainer.loggers = build_loggers(config["logger"], folder, config["run"]["name"] or folder.name, config)
    if trainer.is_global_zero:
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(f"run folder {folder}\n{parameters / 1e6:.2f}M parameters, precision {trainer.precision}", flush=True)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=ckpt, weights_only=True)
    except SystemExit:  # how Lightning ends a run that was told to stop
        if trainer.is_global_zero:
            print(f"stopped at step {trainer.global_step}; resume={folder} goes on from there", flush=True)
        raise KeyboardInterrupt from None
    return folder


def _finished(config: Mapping[str, Any], saved: Mapping[str, Any], ckpt: Path) -> bool:
    """Says what a resume goes on from; True where nothing is left to train."""
    runs.check_same_model(saved["config"], config)
    step, max_steps = saved["global_step"], config["trainer"]["max_steps"]
    if max_steps is not None and step >= max_steps:
        print(f"nothing left to train: max_steps={max_steps} reached (step {step} in {ckpt})")
        return True
    print(f"resuming {ckpt} at step {step}, epoch {saved['epoch']}")
    return False


def make_trainer(config: Mapping[str, Any], folder: Path) -> Trainer:
    """The Trainer of a resolved config, with its callbacks, for the run in `folder`; it has no loggers yet.

    Raises UserError for hardware that is not there.
    """
    trainer, strategy = config["trainer"], config["strategy"]
    minutes = trainer["max_minutes"]
    callbacks = _callbacks(config, folder)
    try:
        return Trainer(
            accelerator=strategy["accelerator"],
            devices=strategy["devices"],
            strategy=strategy["strategy"],
            num_nodes=strategy["num_nodes"],
            precision=_precision(trainer["precision"], strategy["accelerator"]),
            max_steps=trainer["max_steps"],
            max_epochs=trainer["max_epochs"],
            max_time=None if minutes is None else timedelta(minutes=minutes),
            check_val_every_n_epoch=trainer["val_every_n_epochs"],
            gradient_clip_val=trainer["gradient_clip"] or None,
            accumulate_grad_batches=trainer["accumulate"],
            log_every_n_steps=trainer["log_every_n_steps"],
            overfit_batches=trainer["overfit_batches"],
            num_sanity_val_steps=1,
            logger=False,
            callbacks=callbacks,
            plugins=[checkpoint.AtomicCheckpointIO()],
            use_distributed_sampler=False,  # the data set shares itself out
            enable_model_summary=False,
            default_root_dir=folder,
        )
    except (MisconfigurationException, ValueError, ModuleNotFoundError) as error:
        raise UserError(
            f"strategy {strategy['strategy']} on {strategy['devices']} x {strategy['accelerator']}: "
            f"{' '.join(str(error).split())}; strategy=auto takes what is there"
        ) from error


def _callbacks(config: Mapping[str, Any], folder: Path) -> list[Callback]:
    preview = config["preview"]
    callbacks: list[Callback] = [
        Progress(),
        RangeGuard(),
        FiniteGuard(config["trainer"]["max_skipped"]),
        Checkpoints(folder / "checkpoints", **config["checkpoints"]),
    ]
    if config["ema"]["decay"]:
        callbacks.append(EMA(config["ema"]["decay"]))
    if preview["n"]:
        sampler = build.instantiate(preview["sampler"])
        callbacks.append(Preview(folder / "samples", preview["n"], preview["every_n_epochs"], config["seed"], sampler))
    return callbacks


def _precision(precision: str, accelerator: str) -> str:
    if precision != "auto":
        return precision
    gpu = accelerator != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16-mixed" if gpu else "32-true"
