"""The overhead of the trainer: images/s of the `train.py` loop against a bare PyTorch loop of the same algorithm.

    python benchmarks/trainer.py [experiment=digits ...]       # any overrides of train.py

Both train the same module on the same data in the same process, alternately and several times. The second row compares
the training of an epoch with the seconds for the figures of one validation.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.profilers import SimpleProfiler
from loop import train
from measure import Row, alternate, report
from omegaconf import OmegaConf

from diffusion.ground.quiet import quiet
from diffusion.runs import build
from diffusion.runs.compose import compose
from diffusion.training.callbacks.pictures import Pictures
from diffusion.training.loggers.base import build_loggers
from diffusion.training.trainer import callbacks, make_trainer

STEPS, WARM_UP = 150, 20


class Clock(Callback):
    """Times the steps after the warm-up, without validation and saving."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == WARM_UP:
            self.start = time.perf_counter()
        if trainer.global_step == STEPS:
            self.seconds = time.perf_counter() - self.start


def fit(config: dict) -> tuple[Trainer, float]:
    """The trainer after STEPS steps, and the seconds of one."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        trainer = make_trainer(config, folder, [clock, *callbacks(config, folder).values()])
        trainer.loggers = build_loggers(config["logger"], folder, "benchmark", config)
        trainer.profiler = SimpleProfiler()
        trainer.fit(build.trainable(config), datamodule=build.instantiate(config["dataset"], seed=0))
    return trainer, clock.seconds / (STEPS - WARM_UP)


def bare(config: dict) -> float:
    """Seconds of one step."""
    data = build.instantiate(config["dataset"], seed=0)
    data.prepare_data()
    for step, _ in enumerate(train(build.trainable(config), data.split("train")[0], config), start=1):
        if step == WARM_UP:
            start = time.perf_counter()
        if step == STEPS:
            return (time.perf_counter() - start) / (STEPS - WARM_UP)


def pictures(config: dict) -> Row:
    """The figures of the validation at the end of a short run, against the training steps of an epoch."""
    trainer, step = fit(short(config))
    names = [f"[Callback]{callback.state_key}." for callback in trainer.callbacks if isinstance(callback, Pictures)]
    drawing = sum(
        sum(seconds)
        for action, seconds in trainer.profiler.recorded_durations.items()
        if action.startswith(tuple(names)) and "validation" in action
    )
    training = trainer.num_training_batches * step
    what = f"an epoch of training / figures of a validation, {config['dataset']['name']}"
    ratio = training / drawing
    return Row(what, drawing, training, "s", ratio, [ratio])


def short(config: dict) -> dict:
    limits = {"max_steps": STEPS, "max_minutes": None}
    return config | {"trainer": config["trainer"] | limits, "validate": config["validate"] | {"every_n_steps": STEPS}}


def rows(overrides: Sequence[str] = ("experiment=digits",), rounds: int = 5) -> list[Row]:
    quiet()
    config, alone = (
        OmegaConf.to_container(compose("train", ["logger=none", *overrides, *more]), resolve=True)
        for more in ([], ["callbacks=none"])
    )
    images, alone = config["dataset"]["batch_size"], short(alone)
    what = f"train.py / bare loop, {config['dataset']['name']}"
    loops = alternate(what, lambda: images / fit(alone)[1], lambda: images / bare(alone), "images/s", rounds)
    return [loops, pictures(config)]


if __name__ == "__main__":
    report(rows(sys.argv[1:] or ["experiment=digits"]))
