"""Train a diffusion model.

usage: python train.py [OPTION] [GROUP=CHOICE] [KEY=VALUE] ...

  python train.py                                        MNIST, a small network, the paper's linear schedule
  python train.py dataset=digits network=unet_tiny       handwritten digits of 8x8, no download
  python train.py dataset=image_folder dataset.path=my/pictures dataset.size=32
  python train.py dataset=arrays dataset.path=my/arrays  floats of any shape: train/x.npy (N, C, H, W), val/x.npy
  python train.py schedule=cosine trainer.max_minutes=10
  python train.py run.name=first resume=auto             continue the run `first`
  python train.py -m schedule=linear,cosine seed=1,2     four runs, one after the other
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, cast

from omegaconf import DictConfig

from diffusion.conditioners.base import Conditioner
from diffusion.config.plain import plain
from diffusion.config.value_parsers import Of
from diffusion.config.value_types import File, Kernels, Natural, Node
from diffusion.data.base import Data, ImageData
from diffusion.ground import launch
from diffusion.ground.errors import UserError
from diffusion.ground.launch import say
from diffusion.ground.quiet import quiet
from diffusion.lit import notices
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.networks.compilation import compile_network
from diffusion.networks.kernels.choice import use_kernels
from diffusion.runs import build, checkpoint, folder, manifest
from diffusion.runs.saved_counts import limit_reached
from diffusion.training import summary
from diffusion.training.callbacks.checkpoints import Checkpoints
from diffusion.training.callbacks.pictures import Pictures
from diffusion.training.loggers.base import build_loggers
from diffusion.training.loggers.metrics_file import forget_after
from diffusion.training.strategies import StrategyKeys
from diffusion.training.trainer import TrainerKeys, callbacks, make_trainer

LESS_MEMORY = (
    "lower dataset.batch_size and raise trainer.accumulate by the same factor; if it was a preview, "
    "lower callbacks.preview.n"
)
_LIMITS = ("max_steps", "max_minutes", "max_epochs")
# Parts of a checkpoint that an exact resume needs besides the weights.
_PARTS = {"callbacks", "epoch", "global_step", "loops", "lr_schedulers", "optimizer_states"}


class ScheduleKeys(TypedDict):
    zero_terminal_snr: bool


class TrainKeys(TypedDict):
    """conf/train.yaml. The keys of the nodes are the arguments of their constructors."""

    seed: Natural
    resume: File | None
    resume_mode: Literal["full", "weights"]
    rerun: File | None
    run: folder.RunKeys
    validate: Annotated[Node, Of("diffusion.training.cadence.Cadence")]
    checkpoints: Annotated[Node, Of("diffusion.training.callbacks.checkpoints.Checkpoints")]
    self_conditioning: bool
    kernels: Kernels
    compile: bool
    trainer: TrainerKeys
    strategy: StrategyKeys
    schedule: ScheduleKeys


def run(composed: Annotated[DictConfig, TrainKeys]) -> Path:
    """Trains as the composed `conf/train.yaml` describes. Returns the run folder; raises UserError for user errors."""
    quiet()
    launch.check()
    config = plain(composed)
    given = config.pop("given")
    with folder.Run(config) as this:
        saved = checkpoint.read(this.ckpt) if this.ckpt else None
        if saved is not None and config["resume_mode"] == "full":
            _keep_rules(config, saved["config"], folder.RULES)
        _check_end(config)
        _fit_sampler(config, given)
        data = build.instantiate(config["dataset"], seed=config["seed"])
        _settle_space(config, data, saved)
        _settle_conditioning(config["conditioning"], data, given)
        if saved is not None:  # the weights depend on them
            _keep_rules(config, saved["config"], folder.STATISTICS)
        model = build.trainable(config)
        use_kernels(model, config["kernels"] == "auto")
        model.guidance = checkpoint.guidance(config["guidance"], model)
        if saved is None or not _finished(config, saved, this):
            _train(config, model, data, this, saved, given)
    return this.folder


def _train(
    config: dict[str, Any],
    model: LitDiffusion,
    data: Data,
    this: folder.Run,
    saved: Mapping[str, Any] | None,
    given: Sequence[str],
) -> None:
    around = callbacks(config, this.folder)
    trainer = make_trainer(config, this.folder, around.values())
    # Errors are found before the run folder is made.
    model.sampler.check(model.denoiser.schedule, model.objective.learns_variance)
    for key, callback in around.items():
        if isinstance(callback, Pictures):
            callback.check(model, given, f"{key}.")
    trainer.precision_plugin.convert_module(model)  # Lightning converts only after loading the weights of a resume
    continues = saved is not None and config["resume_mode"] == "full"
    if config["compile"]:
        compile_network(model.denoiser.network, trainer.strategy.root_device)
    if saved is not None:
        raw = saved["state_dict"]
        if continues:
            checkpoint.put_state(model, raw)
        else:
            checkpoint.put_weights(model, saved.get("ema_state_dict", raw))
    step = saved["global_step"] if saved is not None and continues else 0
    if trainer.is_global_zero:
        data.prepare_data()
        config["dataset"] |= data.settled()  # for later sessions and evaluations
        data.train_dataloader()
        notices.of_pictures(model.space.shape[0])
        if isinstance(data, ImageData):
            notices.of_size(data.name, data.size, data.original_size)
        contents = manifest.describe(config, data.describe())
        checkpoints = next(each for each in around.values() if isinstance(each, Checkpoints))
        checkpoints.validated_on = [data.fingerprint("val"), data.val_images]
        _report_changes(config, contents, this, saved)
        this.create(contents, step)
        forget_after(this.folder, step)
    try:
        name = config["run"]["name"] or this.folder.name
        trainer.loggers = build_loggers(config["logger"], this.folder, name, config)
        if trainer.is_global_zero:
            say(summary.text(config, model, data, trainer, this.folder, saved if continues else None))
        trainer.fit(model, datamodule=data, ckpt_path=this.ckpt if continues else None, weights_only=True)
    except BaseException as error:
        done = max(step, trainer.global_step)
        if not done:
            this.abandon()
        if not isinstance(error, SystemExit):  # Lightning raises it on an interrupt
            raise
        say(f"stopped at step {done}" + f"; resume={this.folder} continues from there" * bool(done))
        raise KeyboardInterrupt from None


def _keep_rules(config: Mapping[str, Any], old: Mapping[str, Any], rules: Sequence[str]) -> None:
    for key, (kept, given) in folder.keep_rules(config, old, rules).items():
        say(f"{key}={kept}, as in the first session; {given} is for new runs")


def _check_end(config: Mapping[str, Any]) -> None:
    """Raises UserError if the learning rate decays until the end of a run without a limit."""
    limits = [f"trainer.{name}" for name in _LIMITS]
    if config["lr_schedule"].get("steps", 0) is None and all(config["trainer"][name] is None for name in _LIMITS):
        raise UserError(
            "lr_schedule=cosine decays until the end of the run, but the run has no limit: "
            f"set {'=, '.join(limits)}=, or lr_schedule.steps="
        )


def _fit_sampler(config: dict[str, Any], given: Sequence[str]) -> None:
    """Limits the default number of sampler steps to that of the schedule."""
    if "sampler.steps" not in given:
        config["sampler"] = build.with_steps_of(build.schedule(config["schedule"]), config["sampler"])


def _settle_space(config: dict[str, Any], data: Data, saved: Mapping[str, Any] | None) -> None:
    """Fills the shape and the statistics of the space from the data; a resumed run keeps its statistics. Raises
    UserError if the space does not accept the stored type."""
    dtype, shape = data.declaration
    if not isinstance(data, ImageData):  # ImageData has channels and size instead
        config["dataset"]["shape"] = list(shape)
    if saved is not None and config["resume_mode"] == "full":
        folder.keep_statistics(config, saved["config"])

    def training_split() -> Any:
        data.prepare_data()
        return data.split("train")[0]

    space = build.space(config)
    if not space.takes(dtype):
        raise UserError(f"{data.name} stores {dtype}, but its space takes {space.stores}: use space=standardized")
    config["space"] |= space.settled(training_split)


def _settle_conditioning(conditioning: Mapping[str, dict], data: Data, given: Sequence[str]) -> None:
    """Fills the settings of each condition that the data determine. Raises UserError if such a setting was given."""
    for name, node in conditioning.items():
        conditioner = cast("type[Conditioner]", build.class_at(node["_target_"]))
        settled = conditioner.settle(name, data)
        for key in settled:
            if f"conditioning.{name}.{key}" in given:
                raise UserError(f"conditioning.{name}.{key} has no effect: it is filled from the data")
        node |= settled


def _finished(config: Mapping[str, Any], saved: Mapping[str, Any], this: folder.Run) -> bool:
    """Reports the starting point of a resume; returns True if nothing is left to train."""
    folder.check_same_model(saved["config"], config, config["resume_mode"])
    if config["resume_mode"] == "full" and (missing := _PARTS - saved.keys()):
        raise UserError(f"{this.ckpt} has no {', '.join(sorted(missing))}: use only its weights, resume_mode=weights")
    step, averaged = saved.get("global_step"), "ema_state_dict" in saved
    if config["resume_mode"] == "weights":
        weights = "averaged weights" if averaged else "weights"
        say(f"starting from the {weights} of {this.ckpt} (step {step}); everything else starts from scratch")
        return False
    if reached := limit_reached(config["trainer"], saved):
        say(f"nothing left to train: {reached} reached (step {step} in {this.ckpt})")
        return True
    say(
        f"resuming {this.ckpt} at step {step}, epoch {saved['epoch']}: "
        f"restored weights{', their average' * averaged}, optimiser, learning rate, position in the data"
    )
    return False


def _report_changes(
    config: Mapping[str, Any], contents: Mapping[str, Any], this: folder.Run, saved: Mapping[str, Any] | None
) -> None:
    """Reports differences from the run that is resumed or repeated."""
    found = folder.changed(saved["config"], config) if saved else {}
    before = config["rerun"] or this.folder
    if config["rerun"] or (saved and (this.folder / manifest.NAME).exists()):
        earlier = manifest.read(before)
        found |= manifest.differences(earlier["config"].get("strategy"), config["strategy"], "strategy")
        found |= manifest.changes(earlier, contents)
    if found:
        say(f"changed: {manifest.text(found)}")
