"""A batch with its t and eps: lines 2 to 4 of Algorithm 1, drawn by each image's index in the run."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.conditioners.base import Conditioner
from diffusion.conditioners.condition import PREVIOUS, Condition
from diffusion.conditioners.dropping import dropped
from diffusion.data.batches import Batch
from diffusion.ground import random
from diffusion.losses.timesteps import GOLDEN, Timesteps, steps
from diffusion.schedule import Schedule


class TrainingPair(NamedTuple):
    """The inputs of one training step.

    x: (B, C, H, W), as stored. condition: of its images, absent where it was dropped. t: (B,), in steps. eps:
    (B, C, H, W). importance: (B,), the weight of each loss. shown: int64, the rows of the images for which a
    self-conditioned network receives its own prediction, drawn on the host so that nothing waits for the device.
    """

    x: Tensor
    condition: Condition
    t: Tensor
    eps: Tensor
    importance: Tensor
    shown: Tensor


def drawn(
    seed: int,
    batch: Batch,
    shape: Sequence[int],
    schedule: Schedule,
    timesteps: Timesteps,
    conditioning: Mapping[str, Conditioner],
) -> TrainingPair:
    """For training; on the host, so that nothing waits for a device. Arguments as in LitDiffusion; shape: (C, H, W)."""
    index = batch.index
    t, importance = timesteps.draw(seed, index, schedule)
    eps = random.normal(seed, "train/eps", index, shape)
    condition, shown = dropped(seed, index, batch.condition, conditioning), index[:0]
    if PREVIOUS in conditioning:
        shown = (random.uniform(seed, "train/shown", index) < 1 - conditioning[PREVIOUS].drop).nonzero().flatten()
    return TrainingPair(batch.x, condition, t.float(), eps, importance.float(), shown)


def fixed(batch: Batch, shape: Sequence[int], schedule: Schedule) -> TrainingPair:
    """For validation: the same in every epoch and run, spread evenly over t, so that epochs are comparable."""
    index = batch.index
    t = steps(index.double() * GOLDEN % 1, schedule.T)
    eps = random.normal(0, "validation/eps", index, shape)
    return TrainingPair(batch.x, batch.condition, t.float(), eps, torch.ones(len(index)), index[:0])
