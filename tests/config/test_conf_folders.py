"""The user's own folder of yaml files: what it adds, what is refused, and what a run keeps of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion.config import conf_folders
from diffusion.ground.errors import UserError
from diffusion.runs import compose as configs
from tests.helpers.commands import command

ROOT = Path(__file__).parent.parent.parent
SAMPLER = "from diffusion.samplers.ddim import DDIM\n\n\nclass Mine(DDIM):\n    pass\n"
TRAIN = [
    *("dataset=digits", "network=unet_tiny", "network.widths=[4]", "network.norm_groups=2", "network.attention=[]"),
    *("logger=none", "trainer.max_steps=1", "strategy=cpu", "callbacks=none", "dataset.batch_size=8"),
]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a sampler of its own, and one that changes values of ours; its Python lies beside it."""
    folder = tmp_path / "project" / "conf"
    (folder / "sampler").mkdir(parents=True)
    (folder / "sampler" / "mine.yaml").write_text("_target_: mine_alone.Mine\nsteps: 7\n")
    (folder / "sampler" / "short.yaml").write_text("_target_: diffusion.samplers.ddim.DDIM\nsteps: 3\n")
    (folder.parent / "mine_alone.py").write_text(SAMPLER)
    monkeypatch.setenv(conf_folders.VARIABLE, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    sys.modules.pop("mine_alone", None)


@pytest.mark.parametrize(
    ("arguments", "target", "steps"),
    [(["sampler=mine"], "mine_alone.Mine", 7), (["sampler=short"], "diffusion.samplers.ddim.DDIM", 3)],
)
def test_its_choices_are_composed_for_every_command(own, arguments, target, steps):
    conf_folders.use(own)
    for name in "train", "sample", "evaluate":
        node = configs.compose(name, arguments).sampler
        assert (node["_target_"], node.steps) == (target, steps)


def test_its_keys_are_checked_by_the_constructor(own):
    conf_folders.use(own)
    assert configs.compose("sample", ["sampler=mine", "sampler.steps=5"]).sampler.steps == 5
    with pytest.raises(UserError, match=r"sampler\.steps=half: expected a whole number, 1 or more, or null"):
        configs.compose("sample", ["sampler=mine", "sampler.steps=half"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "_target_: mine_alone.Mine\nstep: 7\n",
            "sampler.step: mine_alone.Mine takes no step; it takes steps, times",
        ),
        ("_target_: mine_alone.Mine\nsteps: many\n", "sampler.steps=many: expected a whole number, 1 or more, or null"),
        ("_target_: mine_alone.Yours\n", r"mine_alone.Yours: .*mine_alone.py has no Yours in it"),
        ("_target_: nowhere.Yours\n", "nowhere.Yours: no module nowhere is installed"),
        ("_target_: mine_alone.Mine\nsteps: ${no.such}\n", "the config cannot be composed: Interpolation key"),
    ],
)
def test_a_slip_in_a_yaml_is_one_line(own, text, message):
    conf_folders.use(own)
    (own / "sampler" / "slip.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        configs.compose("sample", ["sampler=slip"])


def test_it_is_named_by_an_option_and_by_the_environment(own):
    arguments = [sys.executable, str(ROOT / "sample.py"), "ckpt=x", "sampler=mine", "--print"]
    by_option = subprocess.run([*arguments, "--config-dir", str(own)], capture_output=True, text=True, check=False)
    given = {**os.environ, conf_folders.VARIABLE: str(own)}
    by_variable = subprocess.run(arguments, capture_output=True, text=True, check=False, env=given)
    assert by_option.stdout == by_variable.stdout
    assert "_target_: mine_alone.Mine" in by_option.stdout


def test_a_folder_that_is_not_there_is_one_line(tmp_path, capsys):
    done = command("train", f"--config-dir={tmp_path / 'nowhere'}", capsys=capsys)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "no such folder; expected one with files such as sampler/mine.yaml" in done.err


def test_a_file_of_the_name_of_one_of_ours_is_refused(own):
    shutil.copy(own / "sampler" / "short.yaml", own / "sampler" / "ddim.yaml")
    with pytest.raises(UserError, match=r"sampler/ddim\.yaml is also a file of the package; rename yours"):
        conf_folders.use(own)


def test_a_part_whose_module_is_missing_is_one_line(own, capsys):
    (own.parent / "mine_alone.py").unlink()
    done = command("sample", "ckpt=x", "sampler=mine", "sampler.steps=4", f"--config-dir={own}", capsys=capsys)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "no module mine_alone is installed" in done.err


def test_a_run_keeps_the_yamls_and_its_checkpoint_names_their_folder(own, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    done = command("train", *TRAIN, "sampler=mine", f"run.dir={run}", f"--config-dir={own}", capsys=capsys)
    assert done.code == 0, done.err
    assert (run / "conf" / "sampler" / "mine.yaml").read_text() == (own / "sampler" / "mine.yaml").read_text()
    monkeypatch.setenv(conf_folders.VARIABLE, "")
    done = command("sample", f"ckpt={run}", "n=1", capsys=capsys)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert (
        f"sampler is 'Mine', which no file of conf/sampler/ names: it is not built; it was made with --config-dir {own}"
        in done.err
    )
    done = command("sample", f"ckpt={run}", "n=1", f"--config-dir={run / 'conf'}", capsys=capsys)
    assert done.code == 0, done.err  # the module is still importable here; the yamls are those of the run


def test_a_target_after_a_blank_line_is_at_the_root(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("defaults: []\n\n_target_: a.B\npart:\n\n  _target_: a.C\n")
    assert conf_folders.targets(file) == [(0, "a.B"), (2, "a.C")]


def test_conf_is_found_in_a_wheel_and_in_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(conf_folders, "__file__", str(tmp_path / "diffusion" / "config" / "folders.py"))
    with pytest.raises(UserError, match="no conf folder"):
        conf_folders.package()
    for folder in tmp_path / "conf", tmp_path / "diffusion" / "conf":
        folder.mkdir(parents=True)
        (folder / "train.yaml").touch()
        assert conf_folders.package() == folder.resolve()
