"""A picture of the first training batch, as the network sees it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion.conditioners.base import Conditioner
from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import Natural
from diffusion.ground import images
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.lit.training_inputs import TrainingPair
from diffusion.training.callbacks.pictures import publish
from diffusion.training.lightning_access import model_of

_ABSENT = "(none)"


class FirstBatch(Callback):
    """Draws x_0 of the first n training images, after augmentation, into `data.png` when a run begins; a resumed run
    keeps the file. Images with the same condition share a row, with the condition as its title.

    samples: the folder of the file.
    """

    def __init__(self, samples: Path | str, n: Natural = 36) -> None:
        self.folder = Path(samples)
        self.n = n

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: TrainingPair, batch_idx: int
    ) -> None:
        if trainer.global_step == 0 and batch_idx == 0 and trainer.is_global_zero:
            publish(trainer, lambda: {"data": self.draw(model_of(pl_module), batch)})

    def draw(self, model: LitDiffusion, batch: TrainingPair) -> Path:
        condition = batch.condition.rows(slice(self.n)).to("cpu")
        shown = model.space.picture(model.space.encode(batch.x[: self.n])).cpu()
        return images.write_png(self.folder / "data.png", _grid(shown, rows(condition, model.conditioning)))


def rows(condition: Condition, conditioning: Mapping[str, Conditioner]) -> dict[str, list[int]]:
    """Title -> the images that have it, in the order of the values; empty if no condition has titles."""
    found: dict[tuple, tuple[str, list[int]]] = {}
    for image in range(len(condition)):
        captions = [_caption(name, image, condition, conditioning) for name in condition.asked if name in conditioning]
        order, titles = tuple(key for key, _ in captions), [title for _, title in captions if title]
        found.setdefault(order, (" ".join(titles), []))[1].append(image)
    return {title: few for _, (title, few) in sorted(found.items()) if title}


def _caption(
    name: str, image: int, condition: Condition, conditioning: Mapping[str, Conditioner]
) -> tuple[tuple[Any, ...], str]:
    """The sort key of an image and the title of its condition, which may be absent."""
    if name in condition.absent and condition.absent[name][image]:
        return (1, ()), _ABSENT
    row = condition.tensors[name][[image]]
    [title] = conditioning[name].titles(row)
    return (0, tuple(row.flatten().tolist()) if title else ()), title


def _grid(shown: Tensor, rows: Mapping[str, list[int]]) -> Tensor:
    if not rows:
        return images.grid(shown)
    columns = max(map(len, rows.values()))
    cells = shown.new_full((len(rows), columns, *shown.shape[1:]), images.GREY)
    for cell, few in zip(cells, rows.values(), strict=True):
        cell[: len(few)] = shown[few]
    return images.grid(cells.flatten(0, 1), columns=columns, names=[*rows])
