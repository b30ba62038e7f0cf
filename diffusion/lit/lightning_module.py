"""LitDiffusion: the LightningModule that trains a denoiser and samples from it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import LRSchedulerTypeUnion, OptimizerLRSchedulerConfig
from torch import Tensor, nn

from diffusion.clipping import Clip, Clipping
from diffusion.conditioners.base import Conditioner
from diffusion.conditioners.condition import PREVIOUS, Condition
from diffusion.config import upgrades
from diffusion.config.value_types import whole
from diffusion.data.batches import Batch
from diffusion.denoiser import Denoiser
from diffusion.ground import random
from diffusion.ground.errors import UserError
from diffusion.guidance import ClassifierFree, Guidance
from diffusion.lit import notices, training_inputs
from diffusion.lit.training_inputs import TrainingPair
from diffusion.losses.objective import L2, Objective, by_quarter
from diffusion.losses.timesteps import Timesteps, Uniform
from diffusion.losses.weighting import Simple
from diffusion.optimization import optimizers
from diffusion.optimization.fitted_rate import Rate
from diffusion.optimization.optimizers import Optimizer
from diffusion.process import Noised
from diffusion.samplers.base import Sampler
from diffusion.schedule import widest
from diffusion.spaces.base import Space
from diffusion.tasks import arguments
from diffusion.tasks.generate import Generate, generate

SIMPLE = L2(Simple())  # L_simple: the validation loss of every run, for any training objective


class LitDiffusion(LightningModule):
    """Trains `denoiser` by Algorithm 1 and samples from it by the reverse process.

    clip: applied to x_0 while sampling. shown_clip: applied to the x_0 that a self-conditioned network receives in
    training; None: same as clip. space: maps stored values to x_0. objective: what training minimises; optimizer: None
    for a module that only samples; timesteps: draws t. conditioning: the network's conditioners by name. config: plain
    containers from which this module is rebuilt; stored in every checkpoint.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        clip: Clipping,
        space: Space,
        optimizer: Optimizer | None = None,
        objective: Objective | None = None,
        timesteps: Timesteps | None = None,
        guidance: Guidance | None = None,
        shown_clip: Clipping | None = None,
        conditioning: Mapping[str, Conditioner] | None = None,
        seed: int = 0,
        config: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.denoiser = denoiser
        self.sampler = sampler
        self.clip = clip
        self.shown_clip = shown_clip or clip
        self.space = space
        self.optimizer = optimizer
        self.objective = objective or L2(Simple())
        self.timesteps = timesteps or Uniform()
        self.guidance = guidance or ClassifierFree(scale=1.0)
        self.conditioning = dict(conditioning or {})
        self.seed = seed
        self.config = config or {}
        self._validation: list[tuple[Tensor, Tensor]] = []

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one x_0."""
        return self.space.x_0_shape

    @property
    def classes(self) -> Sequence[str] | None:
        """The class names of the label condition, or None without one."""
        return getattr(self.conditioning.get("label"), "classes", None)

    # Training: Algorithm 1

    def setup(self, stage: str) -> None:
        """Disables Lightning's conversion of batches: half precision would round stored values before encoding."""
        self.trainer.precision_plugin.convert_input = lambda data: data

    def on_fit_start(self) -> None:
        notices.of_training(self.shown_clip, self.space.clip, self.guidance, self.conditioning)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> TrainingPair:
        """Draws t and eps while the batch is still on the host, so that nothing waits for a GPU."""
        if batch.x.dtype == torch.float64:
            batch = batch._replace(x=batch.x.to(widest(self.device)))
        if self.trainer.training:
            return training_inputs.drawn(
                self.seed, batch, self.shape, self.denoiser.schedule, self.timesteps, self.conditioning
            )
        return training_inputs.fixed(batch, self.shape, self.denoiser.schedule)

    def on_train_batch_start(self, batch: TrainingPair, batch_idx: int) -> None:
        random.seed_torch(self.seed, self.trainer.fit_loop.epoch_loop.total_batch_idx, self.global_rank, self.device)

    def training_step(self, batch: TrainingPair, batch_idx: int) -> Tensor:
        noised = self._noised(batch)
        loss = self.objective(self.denoiser, noised, self._with_previous(batch, noised))
        self.timesteps.observe(batch.t, loss, self.trainer.strategy.all_gather)
        loss = (batch.importance * loss).mean()
        size = len(batch.x)  # otherwise Lightning infers it from the condition
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=size)
        return loss

    def _noised(self, batch: TrainingPair) -> Noised:
        """In float32, or in float64 if the network is: never in half precision."""
        dtype = torch.promote_types(torch.float32, self.dtype)  # pyright: ignore[reportArgumentType] - never a str
        x_0 = self.space.encode(batch.x).to(dtype)
        return Noised.of(self.denoiser.schedule, x_0, batch.t, batch.eps)

    @torch.no_grad()
    def _with_previous(self, batch: TrainingPair, noised: Noised) -> Condition:
        """The condition of a step; with self-conditioning it includes the prediction of the network for some images."""
        if PREVIOUS not in self.conditioning:
            return batch.condition
        rows = batch.shown
        x_t, previous = noised.x_t[rows], torch.zeros_like(noised.x_0)
        if len(rows):
            previous[rows] = self.shown_clip(self.denoiser(x_t, batch.t[rows], batch.condition.rows(rows)).x_0)
        return batch.condition.also(**{PREVIOUS: previous})

    def on_train_batch_end(self, outputs, batch: TrainingPair, batch_idx: int) -> None:
        trainer = self.trainer
        if 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True
        if trainer.should_stop:
            trainer.check_val_every_n_epoch = 1  # the last step of a run is always validated

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        if self.optimizer is None:
            raise UserError(
                "this model has no optimizer, it only samples: build.trainable(model.config) builds one that trains"
            )
        optimizer, schedule = self.optimizer.build(self.denoiser.parameters(), self.objective.parameters())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def averaged_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of which moving averages are kept, under every name they have in the state dict."""
        return self.denoiser.named_parameters("denoiser", remove_duplicate=False)

    def on_train_start(self) -> None:
        _rate(self.lr_schedulers()).begin(self.trainer)

    def lr_scheduler_step(self, scheduler: LRSchedulerTypeUnion, metric: Any | None) -> None:
        rate = _rate(scheduler)
        rate.estimate(self.trainer)  # before the checkpoint of this step
        rate.step()

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint |= upgrades.stamped(self.config)
        self._rename_states(checkpoint, optimizers.by_name)
        checkpoint["timesteps"] = self.timesteps.state_dict()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self._rename_states(checkpoint, optimizers.by_position)
        self.timesteps.load_state_dict(checkpoint.get("timesteps", {}))

    def _rename_states(self, checkpoint: dict, rename: Callable) -> None:
        """Renames the optimizer's states, which are of `self.parameters()`."""
        names = [name for name, _ in self.named_parameters()]
        states = checkpoint.get("optimizer_states", [])
        checkpoint |= {"optimizer_states": [rename(state, names) for state in states]} if states else {}

    # Validation

    def validation_step(self, batch: TrainingPair, batch_idx: int) -> Tensor:
        """The loss of each image, (B,)."""
        loss = SIMPLE(self.denoiser, self._noised(batch), batch.condition)
        self._validation.append(by_quarter(loss, batch.t, self.denoiser.schedule.T))
        return loss

    def on_validation_epoch_end(self) -> None:
        sums, counts = (reduce(torch.add, column) for column in zip(*self._validation, strict=True))
        self._validation.clear()
        sums, counts = self.trainer.strategy.reduce(torch.stack([sums, counts]), reduce_op="sum")
        self.log("val/loss", (sums.sum() / counts.sum()).float(), prog_bar=True)
        for quarter, (total, count) in enumerate(zip(sums, counts, strict=True), start=1):
            if count:  # with fewer than four images some quarters are empty
                self.log(f"val/loss_t{quarter}of4", (total / count).float())

    # Sampling: Algorithm 2

    def sample_batches(
        self,
        index: Tensor | Sequence[int],
        seed: int = 0,
        *,
        condition: Condition | Mapping[str, Any] | None = None,
        y: Tensor | Sequence[int | str] | int | str | None = None,
        task: Generate | None = None,
        sampler: Sampler | None = None,
        clip: Clipping | None = None,
        guidance: Guidance | None = None,
        batch_size: int = 64,
        keep: Sequence[int] | None = None,
        purpose: str = "sample",
        progress: bool = True,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Draws images in batches. Image i of a seed is always the same; `index` lists the n images to draw.

        condition: of the n images, or values for the conditioners by name, one for all images or one for each; None:
        unconditional. y: short for condition={"label": y}: a class for all images, or one for each, by number or name.
        task: None is `Generate`. sampler, clip, guidance: override those of the model. keep: the states to keep, from 0
        (x_T) up to that of x_0, such as range(51) for all of 50 steps; None is x_0 alone.
        Yields indices (B,) and kept states (kept, B, C, H, W), float32 on the CPU, x_0 last; the state and its noise
        are float32 for any precision of the network.
        Raises UserError for invalid arguments before the first image is drawn; warns about questionable ones.
        """
        arguments.check_objects(self.space, task=task, sampler=sampler, clip=clip, guidance=guidance)
        index = arguments.indices(index)
        condition = arguments.condition(condition, y, len(index), self.conditioning)
        if guidance is not None and guidance.scale != 1 and (missing := guidance.needs(condition)):
            raise UserError(missing)
        guidance, sampler = guidance or self.guidance, sampler or self.sampler
        sampler.check(self.denoiser.schedule, self.objective.learns_variance)
        notices.of_sampling(guidance, self.conditioning, condition)
        return self._sampled(
            generate(
                Clip(guidance.wrap(self.denoiser), clip or self.clip),
                sampler,
                self.shape,
                index,
                whole("seed", seed, least=0),
                task=task or Generate(self.space),
                purpose=purpose,
                condition=condition,
                batch_size=whole("batch_size", batch_size, least=1),
                keep=keep,
                device=self.device,
                progress=progress,
            )
        )

    def sample(self, n: int = 16, seed: int = 0, **options) -> Tensor:
        """The first n images of `seed`: x_0 in the model's `space`, float32 (n, C, H, W), on the CPU. options: of
        `sample_batches`."""
        batches = self.sample_batches(torch.arange(whole("n", n, least=1)), seed, **options)
        return torch.cat([states[-1] for _, states in batches])

    def _sampled(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        with self._evaluating():
            yield from batches

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Eval mode (no dropout) inside the context, the earlier mode after it."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)


def _rate(scheduler: object) -> Rate:
    if not isinstance(scheduler, Rate):
        raise TypeError(f"expected the scheduler of configure_optimizers, a Rate, not {scheduler!r}")
    return scheduler
