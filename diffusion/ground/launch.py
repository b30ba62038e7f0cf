"""How this process was started: the environment variables of SLURM, torchrun and similar that Lightning reads."""

import os

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from diffusion.ground.errors import UserError

_OF_A_TASK = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
_OF_ALL_RANKS = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@rank_zero_only
def say(text: str) -> None:
    """Prints, in the first process only."""
    print(text, flush=True)


def rank() -> int:
    """The rank of this process within the run, 0 for the first or only one."""
    return rank_zero_only.rank  # pyright: ignore[reportFunctionMemberAccess] (Lightning sets it)


def check() -> None:
    """Raises UserError if the environment announces several processes but lacks variables that each needs: Lightning
    would fail, wait indefinitely for the others, or train as if it were one of them."""
    _check_slurm()
    _check_ranks()


def check_count(trainer: Trainer) -> None:
    """Raises UserError if SLURM starts another number of processes than the trainer has devices."""
    tasks = _slurm_tasks()
    if tasks and tasks != trainer.num_devices * trainer.num_nodes:
        raise UserError(
            f"SLURM's --ntasks is {tasks}, but there are strategy.devices={trainer.num_devices} on "
            f"strategy.num_nodes={trainer.num_nodes}: each task takes one device; change one of them"
        )


def _check_slurm() -> None:
    tasks = _slurm_tasks()
    if not tasks:
        return
    if missing := [name for name in _OF_A_TASK if name not in os.environ]:
        raise UserError(f"SLURM_NTASKS is set, but not {', '.join(missing)}: start by srun, or unset SLURM_NTASKS")
    if tasks > 1 and "SLURM_STEP_ID" not in os.environ:
        raise UserError(
            f"SLURM gives this job {tasks} tasks, but one process was started: use `srun python train.py ...`, or "
            "--ntasks=1 for a single process"
        )
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UserError(f"SLURM's --ntasks={tasks}: set the number per node instead, --ntasks-per-node=...")


def _slurm_tasks() -> int:
    """The number of tasks of this job; 0 outside a job, or in an interactive one, where the user starts the
    processes."""
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # as in Lightning
    return 0 if interactive else int(os.environ.get("SLURM_NTASKS", 0))


def _check_ranks() -> None:
    for name in "RANK", "LOCAL_RANK":
        if name not in os.environ:
            continue
        launched = name == "LOCAL_RANK" or {"TORCHELASTIC_RUN_ID", "KUBERNETES_PORT"} & {*os.environ}
        if not launched or any(other not in os.environ for other in _OF_ALL_RANKS):
            raise UserError(
                f"the environment has {name}={os.environ[name]}, but not all other variables of torchrun: unset "
                f"{name}, or start by `torchrun train.py ...`"
            )
