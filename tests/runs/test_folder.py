"""Run folders: a resume says what it restores and what has changed; a run can be repeated; it has one owner."""

import csv
import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs import folder, manifest
from tests.helpers.commands import tiny
from tests.helpers.saved import contents

pytestmark = pytest.mark.filterwarnings("ignore")


def same_weights(one, two):
    return all(
        torch.equal(value, two[weights][key])
        for weights in ("state_dict", "ema_state_dict")
        for key, value in one[weights].items()
    )


def test_resume_reports_what_it_restores_and_what_has_changed(start):
    folder = start("trainer.max_steps=3").folder
    done = start("trainer.max_steps=5", "optimizer.lr=2e-3", "optimizer.betas=[0.8,0.9]", "resume=auto")
    assert done.code == 0
    assert done.out.splitlines()[:2] == [
        f"resuming {folder}/checkpoints/last.ckpt at step 3, epoch 0: "
        "restored weights, their average, optimiser, learning rate, position in the data",
        "changed: optimizer.betas [0.9, 0.999] -> [0.8, 0.9], optimizer.lr 0.001 -> 0.002, trainer.max_steps 3 -> 5",
    ]
    [group] = contents(folder)["optimizer_states"][0]["param_groups"]
    assert tuple(group["betas"]) == (0.8, 0.9), "what is said to have changed has"
    sessions = manifest.read(folder)["sessions"]
    assert [session["step"] for session in sessions] == [0, 3]
    assert "optimizer.betas=[0.8,0.9]" in sessions[1]["command"]


def test_an_unchanged_resume_reports_no_change(start):
    folder = start("trainer.max_steps=4", "checkpoints.every_n_steps=2").folder
    (folder / "checkpoints" / "last.ckpt").unlink()
    (folder / "checkpoints" / "step_0000004.ckpt").unlink()
    done = start("trainer.max_steps=4", "checkpoints.every_n_steps=2", "resume=auto")
    assert "step_0000002.ckpt at step 2" in done.out
    assert "changed:" not in done.out


def test_a_resumed_run_keeps_the_rules_it_began_with(start, tmp_path, monkeypatch):
    """One line says so; what begins anew (resume_mode=weights) takes what is given."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "pictures").mkdir()
    for k in range(20):
        Image.new("L", (8, 8), k).save(tmp_path / "pictures" / f"{k}.png")
    given = ["dataset=image_folder", f"dataset.path={tmp_path / 'pictures'}", "dataset.size=8", "dataset.channels=1"]
    given += ["dataset.batch_size=4", "callbacks.preview.n=0", "run.dir=" + str(tmp_path / "a")]
    folder = start(*given, "dataset.split=permutation", "trainer.max_steps=1").folder
    data = manifest.read(folder)["data"]
    done = start(*given, "trainer.max_steps=2", "resume=auto")
    assert done.out.startswith("dataset.split=permutation, as in the first session; hash is for new runs\nresuming")
    assert "dataset.split" not in done.out.splitlines()[2], "has not changed"
    assert contents(folder)["config"]["dataset"]["split"] == "permutation"
    assert manifest.read(folder)["data"] == data
    anew = start(*given[:-1], f"resume={folder}", "resume_mode=weights", "trainer.max_steps=1", name="b")
    assert contents(anew.folder)["config"]["dataset"]["split"] == "hash"
    assert manifest.read(anew.folder)["data"] != data


def test_rules_are_kept_where_both_configs_have_them():
    config, rules = {"a": {"x": 1, "y": 2}}, ("a.x", "a.y", "a.z")
    assert folder.keep_rules(config, {"a": {"x": 3, "y": 2, "z": 4}}, rules) == {"a.x": (3, 1)}
    assert config == {"a": {"x": 3, "y": 2}}
    assert folder.keep_rules(config, {"a": None}, rules) == folder.keep_rules(config, {}, rules) == {}


def test_the_statistics_of_a_condition_are_kept_where_it_has_the_same_columns():
    def conditioning(**statistics):
        return {"conditioning": {"vector": {"_target_": "Vector", **statistics}}}

    config = conditioning(mean=[1.0, 2.0], std=[3.0])
    kept = folder.keep_rules(config, conditioning(mean=[5.0], std=[4.0]), folder.STATISTICS)
    assert kept == {"conditioning.vector.std": ([4.0], [3.0])}
    assert config == conditioning(mean=[1.0, 2.0], std=[4.0])


@pytest.mark.parametrize(("asked", "kept"), [("auto", "off"), ("off", "off")])
def test_sums_go_on_to_be_rounded_as_they_were_unless_it_is_asked_for(monkeypatch, asked, kept):
    monkeypatch.setattr(folder, "RULES", ("kernels",))
    config = {"kernels": asked}
    assert folder.keep_rules(config, {"kernels": "off"}) == ({"kernels": ("off", "auto")} if asked == "auto" else {})
    assert config == {"kernels": kept}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("network.layers=2", "network.layers differs from the checkpoint's (1 -> 2)"),
        ("schedule=vp", "schedule differs from the checkpoint's (linear -> VP)"),
        ("schedule.T=100", "schedule.T differs from the checkpoint's (1000 -> 100)"),
        ("prediction=v", "prediction differs from the checkpoint's (Eps -> V)"),
    ],
)
def test_another_model_is_rejected_with_a_message(start, one_step, word, message):
    done = start(word, f"resume={one_step}", name="b")
    assert done.code == 2
    assert message in done.err
    assert ("resume_mode=weights" in done.err) == (not word.startswith("network"))
    assert not (one_step.parent / "b").exists()


def test_only_the_weights(start, one_step):
    """A new run, from step 0, whose weights and average are the average of the checkpoint's."""
    overrides = [f"resume={one_step}", "resume_mode=weights", "trainer.max_steps=1", "optimizer.lr=1e-30"]
    done = start(*overrides, "prediction=v", name="b")
    assert done.code == 0
    assert "starting from the averaged weights of" in done.out
    assert "prediction Eps -> V" in done.out
    assert done.folder.name == "b"
    old, new = contents(one_step), contents(done.folder)
    assert new["global_step"] == 1
    for key, value in old["ema_state_dict"].items():
        for weights in ("state_dict", "ema_state_dict"):
            torch.testing.assert_close(value, new[weights][key], rtol=0, atol=1e-20)
    assert any(not torch.equal(old["state_dict"][key], value) for key, value in old["ema_state_dict"].items())
    assert "differs from the checkpoint's (1 -> 2)" in start(*overrides, "network.layers=2", name="c").err
    assert "b exists" in start(*overrides, name="b").err
    assert "from which checkpoint? Set resume=RUN" in start("resume=auto", "resume_mode=weights").err


@pytest.mark.parametrize(
    ("word", "message"), [("dataset.val_images=8", True), ("dataset.batch_size=64", False), ("seed=0", False)]
)
def test_the_best_checkpoint_is_reset_for_other_validation_images(start, caplog, word, message):
    folder = start("trainer.max_steps=1").folder
    done = start("trainer.max_steps=2", "resume=auto", word)
    assert done.code == 0
    assert ("best.ckpt is chosen again" in caplog.text) == message
    assert len(contents(folder)["callbacks"]["Checkpoints"]["validated_on"][0]) == 24  # a fingerprint


def test_resume_goes_on_from_the_newest_whole_checkpoint(start, caplog):
    folder = start("trainer.max_steps=4", "checkpoints.every_n_steps=1").folder
    newest = folder / "checkpoints" / "last.ckpt"
    newest.write_bytes(newest.read_bytes()[:1000])
    done = start("trainer.max_steps=5", "resume=auto")
    assert "last.ckpt is damaged" in caplog.text
    assert "at step 3" in done.out
    whole = start("trainer.max_steps=5", name="whole").folder
    assert same_weights(contents(folder), contents(whole))


def test_what_a_killed_session_logged_after_its_checkpoint_is_logged_once(start):
    folder = start("trainer.max_steps=3", "trainer.log_every_n_steps=1").folder
    with open(folder / "metrics.csv", "a") as file:
        file.write("0,,3,0.5,,,,,\n0,,4,0.5,,,,,\n0,,5,0.")  # steps 4 to 6, the last of them half
    start("trainer.max_steps=6", "trainer.log_every_n_steps=1", "resume=auto")
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["train/loss"]] == ["0", "1", "2", "3", "4", "5"]
    assert all(row["train/loss"] != "0.5" for row in rows)


HOLD = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_two_processes_never_train_in_one_folder(start, one_step):
    """The lock goes with the process that held it, however that ended."""
    other = subprocess.Popen([sys.executable, "-c", HOLD, one_step / ".lock"], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        refused = start("trainer.max_steps=2", "resume=auto", name="one")
        assert refused.code == 2
        assert "another process is training there" in refused.err
    finally:
        other.kill()
        other.communicate()
    assert (one_step / ".lock").exists()
    assert "resuming" in start("trainer.max_steps=2", "resume=auto", name="one").out


def test_two_runs_of_one_name_that_start_at_once(tmp_path):
    """Both have found the name free; the second is refused when it comes to make the folder."""
    config = {"resume": None, "resume_mode": "full", "run": {"dir": str(tmp_path / "a")}}
    with folder.Run(config) as first, folder.Run(config) as second:
        first.create(MANIFEST, 0)
        with pytest.raises(ValueError, match="another process is training there"):
            second.create(MANIFEST, 0)
        first.__exit__()
        with pytest.raises(ValueError, match="exists"):
            second.create(MANIFEST, 0)


MANIFEST = {"started": "now", "command": "train.py", "config": {}}


def test_a_run_is_repeated_bit_for_bit(start, train, tmp_path):
    first = start("trainer.max_steps=3", "seed=5", "schedule=cosine").folder
    done = train(f"rerun={first}", f"run.root={tmp_path}", "run.name=again")
    assert done.code == 0
    assert done.folder == tmp_path / "digits" / "again"
    assert "changed" not in done.out
    assert same_weights(contents(first), contents(done.folder))
    other = train(f"rerun={first}", f"run.root={tmp_path}", "run.name=other", "seed=6", "prediction=v")
    assert other.code == 0
    assert not same_weights(contents(first), contents(other.folder))
    config = contents(other.folder)["config"]
    assert (config["seed"], config["prediction"]["class"]) == (6, "V")
    assert config["schedule"] == contents(first)["config"]["schedule"]


def test_what_is_not_as_it_was_is_named(start, train, one_step, tmp_path):
    path = one_step / "manifest.json"
    edited = json.loads(path.read_text())
    edited["data"]["fingerprint"], edited["versions"]["torch"] = "0123", "1.0"
    path.write_text(json.dumps(edited))
    for overrides in ([f"rerun={one_step}", f"run.root={tmp_path}"], tiny(f"resume={one_step}", "trainer.max_steps=2")):
        message = train(*overrides).out
        assert "data.fingerprint 0123 -> " in message
        assert f"versions.torch 1.0 -> {torch.__version__.partition('+')[0]}" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no manifest.json"), ("{", "not a manifest of this program"), ("[]", "not a manifest"), ("{}", "'config'")],
)
def test_only_a_run_can_be_repeated(train, tmp_path, text, message):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    done = train(f"rerun={tmp_path}")
    assert done.code == 2
    assert message in done.err


@pytest.mark.parametrize("broken", ["sanity check", "first step"])
def test_a_failed_start_leaves_no_folder_and_blocks_nothing(broken, start, tmp_path, monkeypatch):
    def breaks(*_):
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(LitDiffusion, "validation_step" if broken == "sanity check" else "on_before_zero_grad", breaks)
        with pytest.raises(RuntimeError, match="broken"):
            start("trainer.max_steps=2", "run.root=" + str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert start("trainer.max_steps=2", "run.root=" + str(tmp_path / "new")).code == 0


def test_a_failed_start_takes_back_no_more_than_it_made(start, one_step, tmp_path, monkeypatch):
    before = {path for path in one_step.rglob("*") if path.name != ".lock"}
    monkeypatch.setattr(LitDiffusion, "training_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start("trainer.max_steps=2", "resume=auto", name="one")
    assert {*one_step.rglob("*")} >= before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".lock").touch()
    with pytest.raises(ZeroDivisionError):
        start("trainer.max_steps=2", "run.dir=" + str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()
    assert tmp_path.exists()
