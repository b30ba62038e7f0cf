"""Weights & Biases."""

import os
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from diffusion.ground.errors import UserError
from diffusion.ground.files import atomic


class Wandb(WandbLogger):
    """Lightning's W&B logger, without prompts. It prints the run's address in one line and finishes the run with the
    trainer.

    Args:
        run_folder: of its files and of the id by which a resumed run continues.
        run_name:   the run's name in W&B.
        config:     stored with the run.
        project, entity: of the run; None: W&B's own default.
        mode:       auto is WANDB_MODE, or else online if the user is logged in, offline if not.

    Raises UserError for mode=online without a usable login.
    """

    def __init__(
        self,
        run_folder: Path,
        run_name: str | None = None,
        config: Mapping[str, Any] | None = None,
        project: str | None = "diffusion",
        entity: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
    ) -> None:
        import wandb

        # Silent: W&B's messages would hide our own. The console is not captured: the progress bar would fill the log,
        # and a wrapped stderr changes how it is drawn.
        settings = wandb.Settings(silent=True, console="off")
        super().__init__(
            name=run_name,
            save_dir=run_folder,
            version=_run_id(run_folder),
            project=project,
            entity=entity,
            mode=_mode(mode, settings),
            config=dict(config or {}),
            settings=settings,
        )
        self._wandb_init.pop("anonymous", None)  # Lightning always sets it, and W&B warns about it

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        opened_now = self._experiment is None
        run = super().experiment
        if opened_now:
            run.define_metric("val/*", step_metric="trainer/global_step", summary="min,last")  # the best of each
            if not run.offline and run.url:
                print(f"W&B: {run.url}")
        return run

    @rank_zero_only
    def picture(self, name: str, path: Path, step: int) -> None:
        import wandb

        # The file itself: W&B rescales the contrast of float arrays. Lightning logs the step as the metric
        # `trainer/global_step`: W&B's own step must not decrease, and late values are dropped.
        shown = (wandb.Video if path.suffix == ".gif" else wandb.Image)(str(path))
        self.log_metrics({name: shown}, step=step)  # pyright: ignore[reportArgumentType] - takes media, as log_image

    @rank_zero_only
    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        import wandb

        shown = wandb.Table(list(columns), [list(row) for row in rows])
        self.log_metrics({name: shown}, step=step)  # pyright: ignore[reportArgumentType] - takes tables, as log_table

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is None:
            return
        run, self._experiment = self._experiment, None
        run.finish(exit_code=0 if status == "success" else 1)
        if run.offline:
            # A resumed run has a folder for each session; `wandb sync` uploads them in order and skips uploaded data.
            sessions = shlex.quote(str(Path(self.save_dir or ".") / "wandb")) + "/offline-run-*"
            print(f"W&B was offline; to upload this run: wandb sync {sessions}")


def _mode(wanted: str, settings: Any) -> str:
    """W&B's mode. Does not prompt for a key, as `wandb.init` would, nor use the network."""
    import wandb
    from wandb.errors import AuthenticationError

    mode = os.environ.get("WANDB_MODE", "online") if wanted == "auto" else wanted
    if mode not in ("online", "shared"):
        return mode
    wandb.setup(settings)  # silences the login
    try:
        logged_in = wandb.login(prompt=False, verify=False)
    except AuthenticationError as error:
        raise UserError(f"W&B cannot use your key ({error}): run `wandb login` again, or choose logger=none") from error
    if wanted == "online" and not logged_in:
        raise UserError(
            "logger.wandb.mode=online, but you are not logged in to W&B: run `wandb login`, or use mode=auto"
        )
    return mode if logged_in else "offline"


def _run_id(run_folder: Path) -> str | None:
    """The W&B run id stored in the run folder; None on ranks other than 0."""
    path = run_folder / "wandb_run_id"
    if rank_zero_only.rank != 0:  # pyright: ignore[reportFunctionMemberAccess] - Lightning sets it on the function
        return None
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_text(secrets.token_hex(4))
    return path.read_text().strip()
