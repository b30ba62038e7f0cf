"""LitDiffusion: a denoiser that Lightning trains and that draws images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from diffusion.clipping import Clip, Clipping
from diffusion.conditioners.base import Conditioner
from diffusion.conditioners.condition import PREVIOUS, Condition
from diffusion.conditioners.label import Label
from diffusion.config import upgrades
from diffusion.config.values import whole
from diffusion.data.base import Batch
from diffusion.denoiser import Denoiser
from diffusion.ground import random
from diffusion.ground.errors import UserError
from diffusion.guidance import ClassifierFree, Guidance
from diffusion.lit import notices, pairs
from diffusion.lit.pairs import TrainingPair
from diffusion.losses.objective import L2, Objective, by_quarter
from diffusion.losses.timesteps import Timesteps, Uniform
from diffusion.losses.weighting import Simple
from diffusion.optimization import optimizers
from diffusion.optimization.optimizers import Optimizer
from diffusion.optimization.rate import Rate
from diffusion.process import Noised
from diffusion.samplers.base import Sampler
from diffusion.schedule import widest
from diffusion.spaces.base import Space
from diffusion.tasks import arguments
from diffusion.tasks.generate import Generate, generate

SIMPLE = L2(Simple())  # L_simple, in which every validation loss is given, whatever is trained


class LitDiffusion(LightningModule):
    """Trains `denoiser` by Algorithm 1 and samples from it by the reverse process.

    clip: applied to x_0 while sampling. shown_clip: to what a self-conditioned network is shown in training; None: as
    clip. space: between what the data set stores and x_0. objective: what training minimises; optimizer: how (None:
    this one does not train); timesteps: which t it draws. conditioning: the conditioners of the network, by name.
    config: plain containers that rebuild this module; it travels in every checkpoint.
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
        """The names of the labels that the network is given, or None."""
        label = self.conditioning.get("label")
        return label.classes if isinstance(label, Label) else None

    # Training: Algorithm 1

    def setup(self, stage: str) -> None:
        """What is stored stays as it is until it is encoded: half precision would round it before."""
        setattr(self.trainer.precision_plugin, "convert_input", lambda batch: batch)  # noqa: B010 (a method of Lightning's)

    def on_fit_start(self) -> None:
        notices.of_training(self.shown_clip, self.space.clip, self.guidance, self.conditioning)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> TrainingPair:
        """Draws t and eps while the batch is still on the host: noise is drawn there, and nothing waits for a GPU."""
        if batch.x.dtype == torch.float64:
            batch = batch._replace(x=batch.x.to(widest(self.device)))
        if self.trainer.training:
            return pairs.drawn(self.seed, batch, self.shape, self.denoiser.schedule, self.timesteps, self.conditioning)
        return pairs.fixed(batch, self.shape, self.denoiser.schedule)

    def on_train_batch_start(self, batch: TrainingPair, batch_idx: int) -> None:
        random.seed_torch(self.seed, self.trainer.fit_loop.epoch_loop.total_batch_idx, self.global_rank, self.device)

    def training_step(self, batch: TrainingPair, batch_idx: int) -> Tensor:
        noised = self._noised(batch)
        loss = self.objective(self.denoiser, noised, self._with_previous(batch, noised))
        self.timesteps.observe(batch.t, loss, cast("Callable[[Tensor], Tensor]", self.all_gather))
        loss = (batch.importance * loss).mean()
        size = len(batch.x)  # Lightning would look for it in the condition
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=size)
        return loss

    def _noised(self, batch: TrainingPair) -> Noised:
        """In float32, or in float64 where the network is: never in half precision."""
        x_0 = self.space.encode(batch.x).to(torch.promote_types(torch.float32, cast("torch.dtype", self.dtype)))
        return Noised.of(self.denoiser.schedule, x_0, batch.t, batch.eps)

    @torch.no_grad()
    def _with_previous(self, batch: TrainingPair, noised: Noised) -> Condition:
        """The condition of a step; a self-conditioned network is shown its own prediction for a part of the images."""
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

    def configure_optimizers(self):
        if self.optimizer is None:
            raise UserError(
                "this model has no optimizer, it only samples: build.trainable(model.config) has that of the run"
            )
        optimizer, schedule = self.optimizer.build(self.denoiser.parameters(), self.objective.parameters())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def averaged_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What a moving average is kept of, under every name that the state dict has for it: the denoiser's."""
        return self.denoiser.named_parameters("denoiser", remove_duplicate=False)

    def on_train_start(self) -> None:
        schedule = self.lr_schedulers()
        assert isinstance(schedule, Rate)
        schedule.begin(self.trainer)

    def lr_scheduler_step(self, scheduler: Rate, metric: None) -> None:
        scheduler.estimate(self.trainer)  # so that a checkpoint of this step has it
        scheduler.step()

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint |= upgrades.stamped(self.config)
        self._rename_states(checkpoint, optimizers.by_name)
        checkpoint["timesteps"] = self.timesteps.state_dict()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self._rename_states(checkpoint, optimizers.by_position)
        self.timesteps.load_state_dict(checkpoint.get("timesteps", {}))

    def _rename_states(self, checkpoint: dict, rename: Callable) -> None:
        """Of the optimiser, which is built over `self.parameters()`."""
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
        both = torch.stack([torch.stack(each) for each in self._validation]).sum(0)  # (2, 4)
        self._validation.clear()
        sums, counts = self.trainer.strategy.reduce(both, reduce_op="sum")
        self.log("val/loss", (sums.sum() / counts.sum()).float(), prog_bar=True)
        for quarter, (total, count) in enumerate(zip(sums, counts, strict=True), start=1):
            if count:  # with less than four images there are quarters without one
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
        """The images `index` (n whole numbers) of the endless row that belongs to `seed`, in batches.

        condition: of the n images, or by name what a conditioner takes, for all images or for each; None draws without.
        y: short for condition={"label": y}: a class for all images, or one for each, by its number in `classes` or its
        name.
        task: None is `Generate`. sampler, clip, guidance: instead of those of the training. keep: the numbers of the
        states to keep, from 0 (x_T) up to that of x_0, such as range(51) for all of 50 steps; None is x_0 alone.
        Yields indices (B,) and kept states (kept, B, C, H, W), float32 on the CPU, x_0 last; the state and its noise
        are float32 whatever the network was cast to.
        Raises UserError for what cannot be, before the first image is drawn; warns of what may not be meant.
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
        """The first n images of `seed`: float32 (n, C, H, W), x_0 of the model's `space`, on the CPU; options
        as in `sample_batches`."""
        batches = self.sample_batches(torch.arange(whole("n", n, least=1)), seed, **options)
        return torch.cat([states[-1] for _, states in batches])

    def _sampled(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        with self._evaluating():
            yield from batches

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Eval mode (no dropout) for a while; then the mode it was in."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)
