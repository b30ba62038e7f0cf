"""The summary of a run that is printed when training begins."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from diffusion.conditioners.condition import PREVIOUS
from diffusion.config.registry import TARGET
from diffusion.data.base import Data
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs.saved_counts import epochs_done, seconds_trained
from diffusion.training.cadence import Cadence
from diffusion.training.callbacks.pictures import Pictures
from diffusion.training.callbacks.validations import Validations
from diffusion.training.lightning_access import callbacks_of
from diffusion.training.loggers.base import of_numbers_alone


def text(
    config: Mapping[str, Any],
    model: LitDiffusion,
    data: Data,
    trainer: Trainer,
    run_folder: Path,
    saved: Mapping[str, Any] | None = None,
) -> str:
    """The summary, one line per key. saved: the checkpoint that the run resumes from."""
    lines = {
        "data": _data(data, model),
        "model": _model(config, model),
        "process": _process(config, model),
        "training": _training(config, trainer),
        "run folder": str(run_folder),
        "ends": _end(config["trainer"], saved),
        "pictures": _pictures(trainer, saved),
    }
    if silent := of_numbers_alone(trainer.loggers):
        lines["no pictures"] = f"{', '.join(silent)} shows numbers only; the pictures are in the run folder"
    width = max(map(len, lines))
    return "\n".join(f"{key:<{width}}  {line}" for key, line in lines.items())


def _data(data: Data, model: LitDiffusion) -> str:
    train, val = (len(data.split(split)[0]) for split in ("train", "val"))
    val = val if data.val_images is None else min(val, data.val_images)
    classes = f", {len(data.classes)} classes" if data.classes else ""
    shape = "x".join(map(str, model.space.shape))
    return f"{data.name}: {train:,} images of {shape} to train on, {val:,} to validate{classes}"


def _model(config: Mapping[str, Any], model: LitDiffusion) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    given = [name if name != PREVIOUS else "its previous x_0" for name in model.conditioning]
    return f"{_class(config['network'])}, {parameters / 1e6:.2f}M parameters" + f", given {' and '.join(given)}" * bool(
        given
    )


def _process(config: Mapping[str, Any], model: LitDiffusion) -> str:
    return (
        f"{_class(config['schedule'])} schedule of {model.denoiser.schedule.T} steps; the network predicts "
        f"{_class(config['prediction']).lower()}, loss {_class(config['loss'])}"
    )


def _training(config: Mapping[str, Any], trainer: Trainer) -> str:
    accumulate = config["trainer"]["accumulate"]
    batch = f"{config['dataset']['batch_size']:,} images a batch" + f", {accumulate} batches a step" * (accumulate > 1)
    strategy = f" ({type(trainer.strategy).__name__})" if trainer.world_size > 1 else ""
    devices = f"{trainer.world_size} x {trainer.strategy.root_device.type}{strategy}"
    return f"{batch}; precision {trainer.precision} on {devices}"


def _end(limits: Mapping[str, Any], saved: Mapping[str, Any] | None) -> str:
    minutes, ends = limits["max_minutes"], []
    if limits["max_steps"] is not None:
        ends.append(f"at step {limits['max_steps']:,}")
    if limits["max_epochs"] is not None:
        ends.append(f"after {limits['max_epochs']:,} epochs")
    if minutes is not None:
        done = seconds_trained(saved) / 60 if saved else 0
        ends.append(f"after {minutes:g} minutes" + f", of which {max(minutes - done, 0):.3g} are left" * bool(done))
    when = f"{' or '.join(ends)}{', whichever is first' * (len(ends) > 1)}" if ends else "when it is stopped"
    return when if minutes is not None else f"{when}; a time estimate follows after the first steps"


def _pictures(trainer: Trainer, saved: Mapping[str, Any] | None) -> str:
    if not any(isinstance(each, Pictures) for each in callbacks_of(trainer)):
        return "none"
    [when] = [each for each in callbacks_of(trainer) if isinstance(each, Validations)]
    cadence = when.preview if when.preview.given else when.validate
    if not cadence.given:
        then = "at intervals such that pictures and validations take at most a tenth of the time"
        return f"{'after the first step, then ' * (saved is None)}{then}"
    first = _first(cadence, saved)
    return f"first {first}, and at the end" if saved is None else f"next {first}, and at the end"


def _first(cadence: Cadence, saved: Mapping[str, Any] | None) -> str:
    step, epochs = (saved["global_step"], epochs_done(saved)) if saved else (0, 0)
    moments = []
    if cadence.every_n_steps:
        moments.append(f"at step {(step // cadence.every_n_steps + 1) * cadence.every_n_steps:,}")
    if cadence.every_n_epochs:
        moments.append(f"after epoch {(epochs // cadence.every_n_epochs + 1) * cadence.every_n_epochs:,}")
    if cadence.every_n_minutes:
        moments.append(f"{'within' if saved else 'after'} {cadence.every_n_minutes:g} minutes")
    return " or ".join(moments)


def _class(node: Mapping[str, Any]) -> str:
    return node[TARGET].rpartition(".")[2]
