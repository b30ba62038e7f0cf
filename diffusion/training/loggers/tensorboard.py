"""TensorBoard."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from diffusion.ground.errors import UserError


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoard logger, in `tensorboard/` of the run folder. It shows PNGs but no GIFs, for which
    TensorBoard needs another package. Raises UserError if TensorBoard is not installed."""

    def __init__(self, run_folder: Path) -> None:
        try:
            super().__init__(run_folder, name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise UserError("logger=tensorboard needs a package that is missing: pip install tensorboard") from error

    @rank_zero_only
    def picture(self, name: str, path: Path, step: int) -> None:
        if path.suffix == ".gif":
            return
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self.experiment.add_image(name, pixels, global_step=step, dataformats="HWC")

    @rank_zero_only
    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        lines = [columns, ["---"] * len(columns), *rows]  # Markdown
        self.experiment.add_text(name, "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines), step)
