"""Whatever ends a run, and wherever: the resumed one ends with the same bytes, having validated as often."""

import errno
import os
import resource
import signal

import pytest
import torch

from diffusion.ground.errors import UserError
from diffusion.losses.timesteps import LossSecondMoment
from diffusion.runs import checkpoint
from diffusion.training.cadence import Cadence
from tests.helpers.lit_models import small_model
from tests.helpers.resumed import EACH_EPOCH, STEPS, Watch, assert_same_end, contents, fit

pytestmark = pytest.mark.filterwarnings("ignore")
IN_BETWEEN = Cadence(every_n_steps=3, every_n_epochs=2)  # after 3, 6, 9, 10 and 12 steps


def steps_saved(folder):
    return sorted(int(file.stem.removeprefix("step_")) for file in folder.glob("step_*.ckpt"))


def step_of(folder):
    return contents(folder)["global_step"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run of each plan (accumulate, validate), with a checkpoint of each of its steps."""
    runs = {}

    def run(accumulate=1, validate=EACH_EPOCH):
        plan = (accumulate, validate)
        if plan not in runs:
            folder = tmp_path_factory.mktemp("whole")
            watch = fit(folder, accumulate=accumulate, validate=validate, every_n_steps=1, keep=100)
            runs[plan] = folder, watch
        return runs[plan]

    return run


def assert_goes_on(whole, folder, watch_before, **plan):
    """The run in `folder`, which ended early, is resumed; with what it did before, it is the uninterrupted one."""
    reference, expected = whole(**plan)
    step = step_of(folder)
    watch = fit(folder, ckpt=folder / "last.ckpt", **plan)
    assert watch.batches == expected.batches[len(expected.batches) - len(watch.batches) :]
    before = [validation for validation in watch_before.validations if validation[0] <= step]
    assert sorted({*before, *watch.validations}) == expected.validations
    assert_same_end(contents(folder), contents(reference))


@pytest.mark.parametrize(
    ("accumulate", "validate"),
    [
        *[(1, EACH_EPOCH), (1, Cadence(every_n_epochs=2)), (3, Cadence(every_n_epochs=2))],
        *[(1, IN_BETWEEN), (2, IN_BETWEEN), (1, Cadence(every_n_steps=1)), (1, Cadence(every_n_steps=5))],
    ],
)
def test_a_run_can_resume_from_every_step(tmp_path, whole, accumulate, validate):
    plan = {"accumulate": accumulate, "validate": validate}
    reference, expected = whole(**plan)
    for step in range(1, STEPS):
        watch = fit(tmp_path / str(step), ckpt=reference / f"step_{step:07d}.ckpt", **plan)
        assert watch.batches == expected.batches[-len(watch.batches) :], step
        assert watch.validations == [validation for validation in expected.validations if validation[0] > step]
        assert_same_end(contents(tmp_path / str(step)), contents(reference))


def breaking(hook, step):
    """Raises in the hook at the step; "batch of a step" is the second batch of those whose gradients it adds up."""

    def at(trainer, now):
        number = trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1
        second = now == "batch start" and number % 2 == 1
        if trainer.global_step == step and (now == hook or (second and hook == "batch of a step")):
            raise RuntimeError("broken")

    return at


@pytest.mark.parametrize(
    ("hook", "step", "accumulate"),
    [
        *[("batch start", step, 1) for step in (3, 4, 6)],
        *[("batch start", step, 2) for step in (4, 6)],
        *[("batch of a step", step, 2) for step in (4, 6)],
        *[(hook, step, 1) for hook in ("validation batch", "preview") for step in (5, 10)],
        ("preview", 6, 2),
    ],
)
def test_what_breaks_between_steps_loses_none(tmp_path, whole, hook, step, accumulate):
    break_and_go_on(tmp_path, whole, hook, step, accumulate=accumulate)


@pytest.mark.parametrize(
    ("hook", "step", "accumulate"),
    [
        *[("batch start", step, 1) for step in (2, 3, 4, 5, 10)],
        *[("batch of a step", step, 2) for step in (3, 4)],
        *[(hook, step, 1) for hook in ("validation batch", "preview") for step in (3, 9, 10)],
    ],
)
def test_what_breaks_beside_a_validation_within_an_epoch_loses_no_step(tmp_path, whole, hook, step, accumulate):
    break_and_go_on(tmp_path, whole, hook, step, accumulate=accumulate, validate=IN_BETWEEN)


def break_and_go_on(folder, whole, hook, step, **plan):
    watch = Watch(breaking(hook, step))
    with pytest.raises(RuntimeError, match="broken"):
        fit(folder, watch, **plan)
    assert step_of(folder) == step
    watch.validations = watch.validations[: -1 if hook == "preview" else None]  # that one was not finished
    assert_goes_on(whole, folder, watch, **plan)


@pytest.mark.parametrize("step", [0, 1, 4, 5, 9])
def test_a_batch_that_cannot_be_read_is_not_skipped_on_resume(tmp_path, whole, step, monkeypatch):
    from diffusion.data.batches import TrainingBatches

    def flip(self, x, index):
        if self.data.position == step + 1:
            raise OSError("the disk is gone")
        return x

    with monkeypatch.context() as patch:
        patch.setattr(TrainingBatches, "_flip", flip)
        with pytest.raises(OSError, match="gone"):
            fit(tmp_path, watch := Watch())
    if step:
        assert step_of(tmp_path) == step
        assert_goes_on(whole, tmp_path, watch)
    else:
        assert not list(tmp_path.glob("*.ckpt"))


def test_what_a_lost_batch_taught_the_timesteps_is_forgotten(tmp_path):
    def learning():
        model = small_model()
        model.timesteps = LossSecondMoment(history=1)
        return model

    fit(tmp_path / "whole", model=learning(), accumulate=2)
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path / "cut", Watch(breaking("batch of a step", 4)), model=learning(), accumulate=2)
    fit(tmp_path / "cut", ckpt=tmp_path / "cut" / "last.ckpt", model=learning(), accumulate=2)
    whole, cut = (contents(tmp_path / name)["timesteps"] for name in ("whole", "cut"))
    assert whole["counts"].sum() > 0
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_half_a_step_is_not_saved(tmp_path, caplog):
    """An error after the optimiser's step and before the average's: neither this step nor the last can be written."""
    fit(tmp_path, steps=2)
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, Watch(breaking("batch end", 4)), tmp_path / "last.ckpt")
    assert step_of(tmp_path) == 2
    assert "inside a step" in caplog.text


def signalling(number, hook, step):
    def at(trainer, now):
        if now == hook and trainer.global_step == step:
            os.kill(os.getpid(), number)

    return at


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("hook", "step", "validate"),
    [
        *[("batch start", 0, EACH_EPOCH), ("batch end", 4, EACH_EPOCH), ("batch end", 5, EACH_EPOCH)],
        *[("validation batch", 10, EACH_EPOCH), ("preview", 5, EACH_EPOCH)],
        *[("batch end", 3, IN_BETWEEN), ("validation batch", 9, IN_BETWEEN), ("preview", 3, IN_BETWEEN)],
    ],
)
def test_a_stopped_run_goes_on(tmp_path, whole, number, hook, step, validate):
    handler, watch = signal.getsignal(number), Watch(signalling(number, hook, step))
    with pytest.raises(SystemExit):
        fit(tmp_path, watch, validate=validate)
    assert signal.getsignal(number) == handler
    assert step_of(tmp_path) == step + (hook in ("batch start", "preview"))
    assert_goes_on(whole, tmp_path, watch, validate=validate)


def test_sigusr1_saves_and_training_goes_on(tmp_path, whole):
    def at(trainer, now):
        if now == "batch end" and trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        if now == "batch start" and trainer.global_step == 3:
            seen.append(step_of(tmp_path))

    seen = []
    fit(tmp_path, Watch(at))
    assert seen == [2]
    assert_same_end(contents(tmp_path), contents(whole()[0]))


def test_the_last_step_is_saved_only_when_it_is_validated(tmp_path, whole):
    """Resumed from there, a run has nothing left to do: killed before its last validation, it would never have it."""

    def at(trainer, now):
        if now == "validation batch":
            seen[trainer.global_step] = step_of(tmp_path)

    seen = {}
    fit(tmp_path, Watch(at), every_n_steps=1)
    assert seen == {5: 5, 10: 10, STEPS: STEPS - 1}
    assert_same_end(contents(tmp_path), contents(whole()[0]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hook", ["batch end", "validation batch", "preview"])
def test_a_stop_waits_for_the_last_validation(tmp_path, whole, number, hook):
    """There is nothing left to do but this, and a run that is found saved without it would never have it."""
    reference, expected = whole()
    watch = fit(tmp_path, Watch(signalling(number, hook, STEPS)))
    assert watch.validations == expected.validations
    assert_same_end(contents(tmp_path), contents(reference))


@pytest.mark.parametrize("hook", ["validation batch", "preview"])
def test_a_last_validation_that_breaks_is_repeated(tmp_path, whole, hook, caplog):
    watch = Watch(breaking(hook, STEPS))
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, watch, every_n_steps=1)
    assert "the last validation failed" in caplog.text
    assert step_of(tmp_path) == STEPS - 1
    assert_goes_on(whole, tmp_path, watch)


@pytest.mark.parametrize("hook", ["validation batch", "preview"])
def test_a_second_sigint_ends_the_last_validation_which_is_repeated(tmp_path, whole, hook):
    def at(trainer, now):
        if now == hook and trainer.global_step == STEPS:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    watch = Watch(at)
    with pytest.raises(SystemExit):
        fit(tmp_path, watch, every_n_steps=1)
    assert step_of(tmp_path) == STEPS - 1
    watch.validations = [validation for validation in watch.validations if validation[0] < STEPS]
    assert_goes_on(whole, tmp_path, watch)


def test_saves_by_steps_and_minutes_and_keeps_the_newest(tmp_path):
    fit(tmp_path / "steps", every_n_steps=4, keep=3, steps=9, validate=Cadence(every_n_epochs=100))
    assert sorted(file.name for file in (tmp_path / "steps").iterdir()) == [
        *("best.ckpt", "last.ckpt"),
        *("step_0000004.ckpt", "step_0000008.ckpt", "step_0000009.ckpt"),
    ]
    fit(tmp_path / "one", every_n_steps=1, keep=1, steps=4)
    assert sorted(file.name for file in (tmp_path / "one").iterdir()) == [
        "best.ckpt", "last.ckpt", "step_0000004.ckpt"
    ]  # fmt: skip
    assert (tmp_path / "one" / "last.ckpt").samefile(tmp_path / "one" / "step_0000004.ckpt")
    fit(tmp_path / "minutes", every_n_minutes=1e-9, keep=100, steps=3)
    assert len(list((tmp_path / "minutes").glob("step_*"))) == 3
    fit(tmp_path / "epochs", every_n_epochs=2, keep=100, validate=Cadence(every_n_epochs=100))
    assert steps_saved(tmp_path / "epochs") == [10, 13]
    fit(tmp_path / "never", every_n_minutes=None, steps=3)
    assert [file.name for file in (tmp_path / "never").glob("step_*")] == ["step_0000003.ckpt"]


def test_the_best_outlives_the_newest(tmp_path):
    """val/loss falls and then rises: best.ckpt stays at its lowest while the others move on."""

    model = small_model()
    losses = iter([0.5, 0.25, 0.75])
    model.on_validation_epoch_end = lambda: model.log(
        "val/loss", 0.9 if model.trainer.sanity_checking else next(losses)
    )
    fit(tmp_path, model=model, keep=1)
    assert (contents(tmp_path, "best")["global_step"], step_of(tmp_path)) == (10, STEPS)
    saved = next(state for name, state in contents(tmp_path)["callbacks"].items() if name.startswith("Checkpoints"))
    assert saved == {"best": 0.25, "monitor": "val/loss", "validated_on": None}


@pytest.mark.parametrize(("before", "now", "best"), [("a", "a", 5), ("a", "b", 13), (None, None, 5)])
def test_the_best_is_not_compared_across_data(tmp_path, before, now, best, caplog):
    """The old data were easy; None: saved by a version that did not say which they were."""
    model, harder = small_model(), small_model()
    model.on_validation_epoch_end = lambda: model.log("val/loss", 0.25)
    harder.on_validation_epoch_end = lambda: harder.log("val/loss", 0.5)
    fit(tmp_path, model=model, steps=5, images=before)
    fit(tmp_path, model=harder, ckpt=tmp_path / "last.ckpt", validate=Cadence(every_n_epochs=9), images=now)
    assert contents(tmp_path, "best")["global_step"] == best
    assert ("best.ckpt is chosen again" in caplog.text) == (before != now)


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path, whole, caplog):
    """The kernel itself refuses to write, here by a limit on the size of files."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def at(trainer, now):
        if now == "batch end":
            room = 3_000 if trainer.global_step in (3, 4) else limits[0]
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        if now == "batch start":
            seen.append(step_of(tmp_path) if trainer.global_step else 0)
            assert not list(tmp_path.glob(".*")), "half a file"

    seen = []
    try:
        fit(tmp_path, Watch(at), every_n_steps=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert seen == [0, 1, 2, 2, 2, 5, 6, 7, 8, 9, 10, 11, 12]
    assert caplog.text.count("was not written (File too large): free disk space") == 2
    assert_same_end(contents(tmp_path), contents(whole()[0]))


def test_a_run_that_saved_nothing_at_its_end_reports_it(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fit(tmp_path, steps=3)
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=rf"steps 4 to 6 are in no checkpoint: .*the newest is {tmp_path}/last.ckpt"):
        fit(tmp_path, ckpt=tmp_path / "last.ckpt", steps=6)
    assert step_of(tmp_path) == 3


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".step_0000001.ckpt.123.tmp").write_bytes(b"half")
    fit(tmp_path, steps=1)
    assert not list(tmp_path.glob(".*"))


def flip_a_bit(path):
    """In the middle of the largest tensor."""
    tensors = torch.load(path, weights_only=True)["state_dict"].values()
    largest = max(tensors, key=torch.numel).numpy().tobytes()
    raw = bytearray(path.read_bytes())
    raw[raw.index(largest) + len(largest) // 2] ^= 1
    path.write_bytes(raw)


def test_the_newest_whole_checkpoint_is_found(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    fit(folder, every_n_steps=1, steps=6, keep=3)
    assert checkpoint.find(tmp_path) == folder / "last.ckpt"
    newest = folder / "step_0000006.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1000])  # last.ckpt is another name of it
    assert checkpoint.find(tmp_path) == folder / "step_0000005.ckpt"
    assert "last.ckpt is damaged" in caplog.text
    flip_a_bit(folder / "step_0000005.ckpt")
    assert checkpoint.find(tmp_path) == folder / "step_0000004.ckpt"
    for file in folder.iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="all of them damaged"):
        checkpoint.find(tmp_path)
