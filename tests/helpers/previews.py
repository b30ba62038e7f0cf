"""A training of the painter with callbacks, and the pixels of its pictures."""

import numpy as np
from lightning.pytorch import Trainer
from PIL import Image

from tests.helpers.painter import Painter


def fit(folder, *callbacks, **options) -> tuple[Painter, Trainer]:
    model = Painter()
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", callbacks=list(callbacks), enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **{"logger": False, **options},
    )  # fmt: skip
    trainer.fit(model)
    return model, trainer


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
