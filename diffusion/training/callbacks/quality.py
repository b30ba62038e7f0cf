"""The quality of sample images, measured while a run goes on."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion.config.value_types import Count, Natural, Node, OpenFraction
from diffusion.data.base import Data
from diffusion.evaluation.comparison import Comparison
from diffusion.evaluation.features.base import Extractor
from diffusion.evaluation.metrics.base import ImageMetric
from diffusion.ground.errors import UserError
from diffusion.ground.launch import say
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs import build
from diffusion.runs.groups import choice
from diffusion.sampling.section import GENERATE, Sampling
from diffusion.training import lightning_counters
from diffusion.training.lightning_access import data_of, model_of

_SECTION = {"y": None, "condition": {}, "clipping": None, "guidance": None, "task": GENERATE}
_FORWARD = 0.5  # of the time of a training step, for one evaluation of as many images


class Quality(Callback):
    """Draws n images at the end of a validation, with the averaged weights, and logs their distance from the training
    images as `val/fd`, `val/mind` or `val/kid`; `checkpoints.monitor=val/mind` makes best.ckpt follow it.

    Each process draws its share of the images; the value is the same for any number of them. It is measured as often as
    `share` of the time of the run allows, and at the end of the run if it was not measured before. Each measurement
    prints its cost.

    Args:
        metric: a choice of conf/metric that evaluates images.
        features: of the metric, see conf/features; a classifier is trained when the run begins, once per dataset.
        sampler: of few steps, see conf/sampler.
        n: images; 0: no measurement. seed: of their noise, the same each time. Conditions take turns, as in previews.
        share: of the time of the run, at most, for all measurements.
        batch_size: of the sampling.
    """

    runs_network = True

    def __init__(
        self,
        metric: Literal["fd", "kid", "mind"],
        features: Node,
        sampler: Node,
        n: Natural = 500,
        seed: Natural = 0,
        share: OpenFraction = 0.03,
        batch_size: Count = 64,
    ):
        self.metric: ImageMetric = build.instantiate(choice("metric", metric)[metric])
        self.nodes: Mapping[str, Mapping[str, Any]] = {"features": features, "sampler": sampler}
        self.n, self.seed, self.share, self.batch_size = n, seed, share, batch_size
        self._spent = self._cost = self._before = 0.0  # seconds: all, of the last measurement, of earlier sessions

    @property
    def logs(self) -> str:
        """The name of what is logged, though not at each validation."""
        return f"val/{self.metric.name}"

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self._spent, "cost": self._cost, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._spent, self._cost, self._before = (state_dict[key] for key in ("spent", "cost", "seconds"))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = data_of(trainer)
        if not isinstance(data, Data):
            raise UserError("callbacks=quality compares images with those of a dataset, and there is none")
        self._model, self._data = model_of(pl_module), data
        self._sampling = self._sampled(self._model)
        self._steps = len(self._sampling.times(self._model)) - 1
        features = build.instantiate(self.nodes["features"])
        if trainer.is_global_zero:
            features.extractor(data)  # may train a classifier, which the other processes then read
        trainer.strategy.barrier()
        self._extractor: Extractor = replace(features.extractor(data), device=trainer.strategy.root_device)
        comparison = self._comparison(torch.empty(0, *self._model.shape, dtype=torch.uint8))
        comparison.check()
        self.metric.check(self.n, comparison)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun, self._first_step = time.monotonic(), trainer.global_step

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not trainer.strategy.broadcast(self._due(trainer)):
            return
        start = time.monotonic()
        value = self.metric(self._comparison(self._drawn(trainer))).value
        self._cost = time.monotonic() - start
        self._spent += self._cost
        pl_module.log(self.logs, value)
        say(
            f"{self.logs} {value:.4g} at step {trainer.global_step:,}: {self.n} images of {self._steps} steps in "
            f"{self._cost:.1f} s; {self._spent / self._seconds():.1%} of the run so far"
        )

    def _sampled(self, model: LitDiffusion) -> Sampling:
        section = {**_SECTION, "n": self.n, "seed": self.seed, "sampler": self.nodes["sampler"]}
        return Sampling.of(section, model).with_examples(model)

    def _comparison(self, images: Tensor) -> Comparison:
        return Comparison(images, self._data, self._extractor, seed=self.seed, progress=False)

    def _drawn(self, trainer: Trainer) -> Tensor:
        """The images, uint8 (n, C, H, W), on every process; process r draws those of index r modulo their number."""
        processes = trainer.world_size
        each = -(-self.n // processes)
        index = torch.arange(each) * processes + trainer.global_rank
        batches = self._sampling.batches(
            self._model, index, batch_size=self.batch_size, purpose="quality", progress=False
        )
        own = torch.cat([self._model.space.picture(states[-1]) for _, states in batches])
        if processes == 1:
            return own
        gathered = trainer.strategy.all_gather(own.to(trainer.strategy.root_device))
        assert isinstance(gathered, Tensor)  # (processes, each, C, H, W)
        return gathered.transpose(0, 1).flatten(0, 1)[: self.n].cpu()

    def _due(self, trainer: Trainer) -> bool:
        """Whether this measurement and one at the end of the run stay within the share."""
        last = lightning_counters.run_ends(trainer)
        if last and not self._spent:
            return True
        measurements = 1 if last else 2
        return self._spent + measurements * (self._cost or self._guess(trainer)) <= self.share * self._seconds()

    def _guess(self, trainer: Trainer) -> float:
        """The seconds of a measurement, by those of the training steps so far."""
        trained = (trainer.global_step - self._first_step) * self._data.batch_size * trainer.accumulate_grad_batches
        evaluations = self.n * self._steps * self._sampling.sampler.evaluations
        return _FORWARD * evaluations * (time.monotonic() - self._begun) / max(trained, 1)

    def _seconds(self) -> float:
        """Of the run, with earlier sessions."""
        return self._before + time.monotonic() - self._begun
