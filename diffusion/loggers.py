"""Where the numbers go: always `metrics.csv` in the run folder, and W&B or TensorBoard if chosen."""

import csv
import logging
import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from diffusion.errors import UserError
from diffusion.files import atomic

log = logging.getLogger(__name__)

_NAMES = ("wandb", "tensorboard", "csv", "none")


def build_loggers(
    logger_config: Mapping[str, Any], run_folder: Path | str, run_name: str, config_dict: Mapping[str, Any]
) -> list[Logger]:
    """The loggers of a run: metrics.csv first, then the one `logger_config["name"]` chooses.

    Args:
        logger_config: `name`: wandb, tensorboard, csv or none; for W&B also `project`, `entity` and `mode` (auto,
            online or offline), all optional.
        run_folder: made if it is not there. A run that is resumed in it appends to its metrics.csv and continues its
            W&B run.
        run_name: the run's name in W&B.
        config_dict: the resolved config in plain containers, stored with the W&B run.

    Raises: UserError on another name, where W&B is asked to be online without a usable login, and where tensorboard is
        not installed.
    """
    run_folder = Path(run_folder)
    run_folder.mkdir(parents=True, exist_ok=True)
    name = logger_config["name"]
    loggers: list[Logger] = [MetricsFile(run_folder)]
    if name == "wandb":
        loggers.append(_wandb(logger_config, run_folder, run_name, config_dict))
    elif name == "tensorboard":
        loggers.append(_tensorboard(run_folder))
    elif name not in _NAMES:
        raise UserError(f"logger={name} is unknown: choose one of {', '.join(_NAMES)}")
    return loggers


def forget_after(run_folder: Path, step: int) -> None:
    """Takes out of metrics.csv what a session that was killed has logged after the checkpoint of `step`: the session
    that goes on from there logs it again."""
    path = run_folder / "metrics.csv"
    if path.exists():
        names, rows = _read(path)
        _write(path, names, [row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) < step])


class MetricsFile(CSVLogger):
    """`metrics.csv` in the run folder itself, written as soon as something is logged."""

    def __init__(self, run_folder: Path) -> None:
        super().__init__(run_folder, name="", version="", flush_logs_every_n_steps=1)

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = _AppendingWriter(self.log_dir)
        return self._experiment


class _AppendingWriter(ExperimentWriter):
    _told = False

    def _check_log_dir_exists(self) -> None:
        """Lightning deletes the file of an earlier session here; a resumed run goes on with its columns instead."""
        if os.path.exists(self.metrics_file_path):
            self.metrics_keys, _ = _read(Path(self.metrics_file_path))

    def save(self) -> None:
        """Appends what was logged; new columns rewrite the file, whole or not at all. What a full disk does not take is
        kept for the next time, and no half of a row stays in the file."""
        if not self.metrics:
            return
        path, names = Path(self.metrics_file_path), sorted({*self.metrics_keys, *set().union(*self.metrics)})
        try:
            if names != self.metrics_keys:
                _write(path, names, _read(path)[1] if path.exists() else [])
                self.metrics_keys = names
            size = path.stat().st_size
            try:
                with open(path, "a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, names).writerows(self.metrics)
            except OSError:
                os.truncate(path, size)
                raise
            self.metrics, self._told = [], False
        except OSError as error:
            if not self._told:
                log.warning("%s cannot be written (%s): its rows are kept for later", path, error.strerror)
            self._told = True


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Names of the columns, and rows."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return list(rows.fieldnames or []), list(rows)


def _write(path: Path, names: list[str], rows: list[dict[str, str]]) -> None:
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


class WandbRun(WandbLogger):
    """Lightning's W&B logger that says in one line where the run is, and is finished when the trainer is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
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
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is None:
            return
        run, self._experiment = self._experiment, None
        run.finish(exit_code=0 if status == "success" else 1)
        if run.offline:
            # A resumed run has a folder for each session; `wandb sync` takes them in order, and skips what it has sent.
            sessions = shlex.quote(str(Path(self.save_dir) / "wandb")) + "/offline-run-*"
            print(f"W&B was offline; to upload this run: wandb sync {sessions}")


def _wandb(
    logger_config: Mapping[str, Any], run_folder: Path, run_name: str, config_dict: Mapping[str, Any]
) -> WandbRun:
    import wandb

    # Silent: its page of greetings would hide our own lines. The console is not captured, since a progress line would
    # fill the log, and wrapping stderr changes how it is drawn.
    settings = wandb.Settings(silent=True, console="off")
    return WandbRun(
        name=run_name,
        save_dir=run_folder,
        version=_wandb_id(run_folder),
        project=logger_config.get("project"),
        entity=logger_config.get("entity"),
        mode=_wandb_mode(logger_config.get("mode", "auto"), settings),
        config=dict(config_dict),
        settings=settings,
    )


def _wandb_mode(wanted: str, settings: Any) -> str:
    """auto is WANDB_MODE, or else online where the user is logged in and offline where not.

    Neither asks the user for a key, as `wandb.init` would, nor uses the network.
    """
    import wandb

    mode = os.environ.get("WANDB_MODE", "online") if wanted == "auto" else wanted
    if mode not in ("online", "shared"):
        return mode
    wandb.setup(settings)  # the login would announce itself
    try:
        logged_in = wandb.login(prompt=False, verify=False)
    except wandb.errors.AuthenticationError as error:
        raise UserError(f"W&B cannot use your key ({error}): run `wandb login` again, or choose logger=csv") from error
    if wanted == "online" and not logged_in:
        raise UserError("logger.mode=online, but you are not logged in to W&B: run `wandb login`, or take mode=auto")
    return mode if logged_in else "offline"


def _wandb_id(run_folder: Path) -> str | None:
    """The id of the run folder's W&B run, kept in it; None on the ranks that open no run."""
    path = run_folder / "wandb_run_id"
    if rank_zero_only.rank != 0:
        return None
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_text(secrets.token_hex(4))
    return path.read_text().strip()


def _tensorboard(run_folder: Path) -> TensorBoardLogger:
    try:
        return TensorBoardLogger(run_folder, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise UserError("logger=tensorboard needs a package that is missing: pip install tensorboard") from error
