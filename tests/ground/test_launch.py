"""Processes that SLURM or torchrun start, by imitation: one line where not all of them would find each other."""

from types import SimpleNamespace

import pytest

from diffusion.ground import launch
from diffusion.ground.errors import UserError
from tests.helpers.commands import command, tiny

BATCH = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NAME": "x"}
STEP = {**BATCH, "SLURM_STEP_ID": "0"}
ELASTIC = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "LOCAL_RANK": "1"}
ALL = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1234"}

REFUSED = [
    (BATCH, "SLURM gives this job 4 tasks, but one process was started: use `srun python train.py ...`"),
    ({**BATCH, "SLURM_NTASKS_PER_NODE": "4"}, "use `srun python train.py ...`"),
    (STEP, "SLURM's --ntasks=4: set the number per node instead, --ntasks-per-node=..."),
    ({"SLURM_NTASKS": "1"}, "SLURM_NTASKS is set, but not SLURM_PROCID, SLURM_LOCALID, SLURM_NODEID: start by srun"),
    ({"RANK": "0"}, "the environment has RANK=0, but not all other variables of torchrun: unset RANK, or start by"),
    ({"RANK": "1", **ALL}, "the environment has RANK=1"),
    ({"LOCAL_RANK": "1"}, "the environment has LOCAL_RANK=1"),
    (ELASTIC, "the environment has RANK=1"),
    ({**ELASTIC, **ALL, "MASTER_PORT": None}, "the environment has RANK=1"),
]
FINE = [
    {},
    {**BATCH, "SLURM_NTASKS": "1"},
    {**STEP, "SLURM_NTASKS_PER_NODE": "4"},
    {**BATCH, "SLURM_JOB_NAME": "interactive"},
    {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash"},
    {**ELASTIC, **ALL},
    {"LOCAL_RANK": "1", "NODE_RANK": "0", **ALL},  # as Lightning starts the others itself
    {"RANK": "1", "KUBERNETES_PORT": "x", **ALL},
    {"WORLD_SIZE": "4"},
]


@pytest.fixture
def environment(monkeypatch):
    def put(values):
        for name in (*STEP, "SLURM_NTASKS_PER_NODE", *ELASTIC, *ALL, "KUBERNETES_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            if value is not None:
                monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_processes_that_would_not_find_each_other_are_one_line(values, message, environment, tmp_path, capsys):
    environment(values)
    done = command("train", *tiny(f"run.dir={tmp_path / 'run'}", "trainer.max_steps=1"), capsys=capsys)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("values", FINE)
def test_those_that_do_are_left_alone(values, environment):
    environment(values)
    launch.check()


def test_a_task_is_a_device(environment):
    trainer = SimpleNamespace(num_devices=2, num_nodes=3)
    environment({**STEP, "SLURM_NTASKS": "6"})
    launch.check_count(trainer)
    environment({})
    launch.check_count(trainer)
    environment(STEP)
    with pytest.raises(UserError, match=r"--ntasks is 4, but there are strategy.devices=2 on strategy.num_nodes=3"):
        launch.check_count(trainer)


@pytest.mark.filterwarnings("ignore")
def test_a_job_of_one_task_trains(environment, tmp_path, capsys):
    environment({**BATCH, "SLURM_NTASKS": "1", "SLURM_JOB_ID": "7"})
    line = tiny(f"run.dir={tmp_path / 'run'}", "trainer.max_steps=1", "callbacks.preview.n=0")
    assert command("train", *line, capsys=capsys).code == 0
