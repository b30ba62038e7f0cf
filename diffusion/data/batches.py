"""The batches of an epoch: which images, in which order, on which process. Exact under a resume."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from diffusion.conditioners.condition import Condition
from diffusion.ground import random
from diffusion.ground.errors import UserError

if TYPE_CHECKING:
    from diffusion.data.base import Data


class Batch(NamedTuple):
    """Images in their stored type, with conditions and indices.

    x:     (B, C, H, W), of the declared type.
    condition: the conditions of the images, such as `label`, the class, int64 (B,).
    index: int64 (B,), the key of the noise. In training, the position of the image in the whole run (batch number *
           batch size + position in the batch of all processes); in validation, its position in the validation set.
    """

    x: Tensor
    condition: Condition
    index: Tensor


class TrainingBatches:
    """One pass yields the batches of one epoch, from the current position of the run.

    Lightning counts the batches of a resumed epoch itself and stops at its end. An incomplete batch is left out. The
    loader has a length, so Lightning does not prefetch and `position` is never ahead of the training.
    """

    def __init__(self, data: "Data"):
        self.data = data
        self.images, self.condition = data.split("train")
        self.local = data.local_batch_size
        if not len(self):
            raise UserError(
                f"{data.name}: dataset.batch_size={data.batch_size} is more than the {len(self.images)} training "
                f"images: set dataset.batch_size={len(self.images)} or less"
            )

    def __len__(self) -> int:
        return len(self.images) // self.data.batch_size

    def __iter__(self) -> Iterator[Batch]:
        data, per_epoch = self.data, len(self)
        known, order = None, torch.empty(0)
        for _ in range(per_epoch):
            epoch, number = divmod(data.position, per_epoch)
            if epoch != known:
                order, known = random.permutation(data.seed, f"order/{epoch}", len(self.images)), epoch
            offset = torch.arange(self.local) + data.rank * self.local
            rows = order[number * data.batch_size + offset]
            index = data.position * data.batch_size + offset
            # Incremented before the batch is yielded: a checkpoint written during its step must count it.
            data.position += 1
            yield Batch(self._flip(self.images[rows], index), self.condition.rows(rows), index)

    def _flip(self, x: Tensor, index: Tensor) -> Tensor:
        if not self.data.flip:
            return x
        mirrored = random.uniform(self.data.seed, "flip", index) < 0.5
        return torch.where(mirrored[:, None, None, None], x.flip(-1), x)

    # Lightning checks whether the loader has these methods, and warns if it cannot resume.
    def state_dict(self) -> dict[str, int]:
        return self.data.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.data.load_state_dict(state_dict)


class ValidationBatches:
    """Every validation image once, in order; process r of w gets images r, r + w, r + 2w, ...

    Every process gets the same number of batches, none of them empty (otherwise FSDP hangs), of nearly equal sizes.
    """

    def __init__(self, data: "Data"):
        self.images, self.condition = data.split("val")
        available, world = len(self.images), data.world_size
        n = available if data.val_images is None else min(data.val_images, available)
        if n < world:
            raise UserError(f"{data.name}: {n} validation images, but each of {world} process(es) needs at least one")
        self.rows = torch.arange(n) * available // n
        batches = -(-(n // world) // data.local_batch_size)
        self.indexes = torch.arange(n)[data.rank :: world].tensor_split(batches)

    def __len__(self) -> int:
        return len(self.indexes)

    def __iter__(self) -> Iterator[Batch]:
        for index in self.indexes:
            rows = self.rows[index]
            yield Batch(self.images[rows], self.condition.rows(rows), index)
