"""A slip in a yaml file of the user's own folder is one line that names the file."""

import sys

import pytest

from diffusion.config import conf_folders
from diffusion.ground.errors import UserError
from tests.helpers.commands import command

GOOD = "_target_: diffusion.samplers.ddim.DDIM\nsteps: 3\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv(conf_folders.VARIABLE, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path / "conf"


def write(own, name, text):
    file = own / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sampler/mine.yaml", "steps: [1", "mine.yaml: cannot be read as YAML"),
        ("sampler/mine.yaml", "\tsteps: 1", "mine.yaml: cannot be read as YAML"),
        ("sampler/mine.yaml", "steps: 1\nsteps: 2", "mine.yaml: cannot be read as YAML"),
        ("sampler/mine.yaml", b"steps: \xff\xfe", "mine.yaml: cannot be read as YAML"),
        ("sampler/mine.yaml", "a: &a {b: *a}", "mine.yaml: cannot be read as YAML"),
        ("sampler/mine.yaml", "- steps", "expected lines of `key: value`, not a list"),
        ("sampler/mine.yaml", "# nothing yet\n", "mine.yaml is empty"),
        ("sampler/mine.yaml", "1: 3", "the key 1 is not a text"),
        ("sampler/mine.yaml", "defaults: 3", "defaults: expected a list"),
        ("sampler/mine.yaml", f"defaults: [mine, _self_]\n{GOOD}", "its defaults name the file itself"),
        ("sampler/mine.yaml", "_target_:\n", "_target_=None: expected MODULE.NAME"),
        ("sampler/mine.yaml", "_target_: [a]\n", "expected MODULE.NAME"),
        ("sampler/mine.yaml", "_target_: 3\n", "_target_=3: expected MODULE.NAME"),
        ("sampler/12.yaml", GOOD, "a choice is named by letters"),
        ("sampler/null.yaml", GOOD, "a choice is named by letters"),
        ("sampler/a,b.yaml", GOOD, "a choice is named by letters"),
        ("smapler/mine.yaml", GOOD, "there is no group smapler; did you mean sampler?"),
        ("callbacks/mine.yaml", "_target_: my.Part\nn: 3\n", "expected a name for each part"),
        ("mine.py", "", "no yaml files there, such as sampler/mine.yaml"),
    ],
)
def test_a_slip_is_one_line(own, capsys, name, text, message):
    write(own, name, text)
    done = command("sample", "ckpt=x", "--print", f"--config-dir={own}", capsys=capsys)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err


def test_the_folder_above_or_below_is_named(own):
    write(own, "sampler/mine.yaml", GOOD)
    with pytest.raises(UserError, match=r"is the folder of a group: name the one above it"):
        conf_folders.use(own / "sampler")
    (own / "conf").mkdir()
    (own / "sampler" / "mine.yaml").unlink()
    with pytest.raises(UserError, match=r"did you mean .*conf\?"):
        conf_folders.use(own)


@pytest.mark.parametrize("name", ["sampler/my best-1.5.yaml", "sampler/x_2.yaml"])
def test_what_is_right_is_taken(own, capsys, name):
    write(own, name, GOOD)
    choice = name.removeprefix("sampler/").removesuffix(".yaml")
    done = command("sample", "ckpt=x", "--print", f"--config-dir={own}", f"sampler={choice}", capsys=capsys)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("key", ["experiment", "self_conditioning_clipping", "callbacks.preview.clipping"])
def test_null_is_the_default_that_the_reference_names(key, capsys):
    plain = command("train", "--print", capsys=capsys).out
    done = command("train", "--print", f"{key}=null", capsys=capsys)
    assert done.out.replace(f"- {key}\n", "").replace("given:\n", "given: []\n") == plain
