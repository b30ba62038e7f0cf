"""The report of a run, when it ends."""

import warnings
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from diffusion.ground.errors import Notice
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.report import page


class Report(Callback):
    """Writes `report.html` into the run folder when a training ends, see `diffusion.report`. If that fails, the run
    still ends normally and a notice gives the reason."""

    def __init__(self, run_folder: Path | str) -> None:
        self.folder = Path(run_folder)

    def on_train_end(self, trainer: Trainer, pl_module: LitDiffusion) -> None:
        if not trainer.is_global_zero:
            return
        try:
            page.write([self.folder])
        except Exception as error:
            reason = " ".join(str(error).split())
            warnings.warn(f"no {page.NAME} ({type(error).__name__}: {reason})", Notice, stacklevel=2)
