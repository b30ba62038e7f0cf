"""A file of torch.save is read once, and a changed byte in it is seen."""

import zipfile
from pathlib import Path

import pytest
import torch

from diffusion.ground import archive
from diffusion.ground.errors import UserError
from diffusion.runs import checkpoint
from tests.helpers.commands import command
from tests.helpers.random_model import random_model

pytestmark = pytest.mark.filterwarnings("ignore")
KEY = "denoiser.network.conv_in.weight"
TENSORS = {"a": torch.arange(5000.0), "b": torch.zeros(5000), "c": torch.zeros(5000), "few": torch.ones(3), "n": 1}


def change(path, contents, name):
    """Flips a bit in the middle of a tensor."""
    raw, tensor = bytearray(path.read_bytes()), contents[name].numpy().tobytes()
    raw[raw.index(tensor) + len(tensor) // 2] ^= 1
    path.write_bytes(raw)


@pytest.fixture
def file(tmp_path):
    torch.save(TENSORS, tmp_path / "x.pt")
    return tmp_path / "x.pt"


def test_it_is_what_torch_reads(file):
    contents = archive.read(file, "a file")
    assert contents["n"] == 1
    assert all(torch.equal(contents[name], TENSORS[name]) for name in ("a", "b", "c", "few"))


@pytest.mark.parametrize("name", ["a", "b", "few"])
def test_a_changed_bit_is_seen(file, name):
    assert archive.is_whole(file)
    change(file, TENSORS, name)
    assert not archive.is_whole(file)
    with pytest.raises(UserError, match=r"x\.pt: damaged, its checksums do not match: not a file"):
        archive.read(file, "a file")


def test_a_changed_part_that_torch_does_not_read_is_seen(file):
    with zipfile.ZipFile(file, "a") as opened:
        opened.writestr("x/more", b"12345678" * 100)
    archive.read(file, "a file")
    file.write_bytes(file.read_bytes().replace(b"12345678", b"12345679", 1))
    with pytest.raises(UserError, match="not a file"):
        archive.read(file, "a file")


def test_a_compressed_archive_is_read_and_checked(file, tmp_path):
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert torch.equal(archive.read(tmp_path / "y.pt", "a file")["a"], TENSORS["a"])


@pytest.fixture
def run(tmp_path):
    """A run folder with two checkpoints, of some MB that no picture needs."""
    folder = tmp_path / "run" / "checkpoints"
    for step in 1, 2:
        path = random_model(folder / f"step_{step}.ckpt", "sampler=ddim", "sampler.steps=1")
        torch.save({**torch.load(path, weights_only=True), "optimizer_states": [torch.randn(2_000_000)]}, path)
    (folder / "step_2.ckpt").rename(folder / "last.ckpt")
    return tmp_path / "run"


def bytes_read():
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts the bytes that a process reads")
def test_a_picture_reads_its_checkpoint_once(run, tmp_path, capsys):
    overrides = [f"ckpt={run}", "n=1"]
    command("sample", *overrides, f"output={tmp_path / 'first'}", capsys=capsys)  # imports read files, too
    before = bytes_read()
    assert command("sample", *overrides, f"output={tmp_path / 'second'}", capsys=capsys).code == 0
    assert 1 < (bytes_read() - before) / (run / "checkpoints" / "last.ckpt").stat().st_size < 1.3


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(run, caplog):
    folder = run / "checkpoints"
    assert checkpoint.opened(run)[0] == checkpoint.find(run) == folder / "last.ckpt"
    change(folder / "last.ckpt", torch.load(folder / "last.ckpt", weights_only=True)["state_dict"], KEY)
    assert checkpoint.opened(run)[0] == checkpoint.find(run) == folder / "step_1.ckpt"
    assert caplog.text.count("last.ckpt is damaged") == 2
    with pytest.raises(UserError, match=r"last\.ckpt: damaged, its checksums do not match"):
        checkpoint.opened(folder / "last.ckpt")
    (folder / "step_1.ckpt").write_bytes(b"PK")
    for look in checkpoint.opened, checkpoint.find:
        with pytest.raises(UserError, match="2 checkpoints, all of them damaged"):
            look(run)


def test_a_whole_file_of_another_program_does_not_give_way(run):
    torch.save({"weights": torch.ones(3)}, run / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt: not a checkpoint of this program"):
        checkpoint.opened(run)
