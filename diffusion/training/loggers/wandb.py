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

from diffusion.ground import launch
from diffusion.ground.errors import UserError
from diffusion.ground.files import atomic


class Wandb(WandbLogger):
    """Lightning's W&B logger that never asks the user for anything, says in one line where the run is, and is finished
    when the trainer is.

    Args:
        run_folder: where its files go, and the id by which a resumed run continues.
        run_name:   the run's name in W&B.
        config:     stored with the run.
        project, entity: where it belongs; None: W&B's own default.
        mode:       auto is WANDB_MODE, or else online where the user is logged in and offline where not.

    Raises UserError where W&B is asked to be online without a usable login.
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

        # Silent: its page of greetings would hide our own lines. The console is not captured, since a progress line
        # would fill the log, and wrapping stderr changes how it is drawn.
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
        self._wandb_init.pop("anonymous", None)  # Lightning always gives it, and W&B warns of whoever does

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        opened_now = self._experiment is None
        run = super().experiment
        if opened_now and not run.offline and run.url:
            print(f"W&B: {run.url}")
        return run

    @rank_zero_only
    def picture(self, name: str, path: Path, step: int) -> None:
        import wandb

        # The file itself, since W&B rescales the contrast of arrays it takes for floats. Lightning passes the step on
        # as the metric `trainer/global_step`: W&B's own step may only grow, and drops what comes late.
        shown = wandb.Video if path.suffix == ".gif" else wandb.Image
        self._log({name: shown(str(path))}, step)

    @rank_zero_only
    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        import wandb

        self._log({name: wandb.Table(list(columns), [list(row) for row in rows])}, step)

    def _log(self, values: dict[str, Any], step: int) -> None:
        self.log_metrics(values, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is None:
            return
        run, self._experiment = self._experiment, None
        run.finish(exit_code=0 if status == "success" else 1)
        if run.offline:
            # A resumed run has a folder for each session; `wandb sync` takes them in order, and skips what it has sent.
            sessions = shlex.quote(str(Path(self.save_dir or ".") / "wandb")) + "/offline-run-*"
            print(f"W&B was offline; to upload this run: wandb sync {sessions}")


def _mode(wanted: str, settings: Any) -> str:
    """What W&B is to be told. Neither asks the user for a key, as `wandb.init` would, nor uses the network."""
    import wandb
    from wandb.errors import AuthenticationError

    mode = os.environ.get("WANDB_MODE", "online") if wanted == "auto" else wanted
    if mode not in ("online", "shared"):
        return mode
    wandb.setup(settings)  # the login would announce itself
    try:
        logged_in = wandb.login(prompt=False, verify=False)
    except AuthenticationError as error:
        raise UserError(f"W&B cannot use your key ({error}): run `wandb login` again, or choose logger=none") from error
    if wanted == "online" and not logged_in:
        raise UserError(
            "logger.wandb.mode=online, but you are not logged in to W&B: run `wandb login`, or take mode=auto"
        )
    return mode if logged_in else "offline"


def _run_id(run_folder: Path) -> str | None:
    """The id of the run folder's W&B run, kept in it; None on the ranks that open no run."""
    path = run_folder / "wandb_run_id"
    if launch.rank() != 0:
        return None
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_text(secrets.token_hex(4))
    return path.read_text().strip()
