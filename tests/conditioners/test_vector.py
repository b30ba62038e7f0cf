"""Vector: its statistics are the data's and stay with the weights."""

import numpy as np
import pytest

from diffusion.runs import checkpoint
from tests.helpers.commands import command
from tests.helpers.fields import write

pytestmark = pytest.mark.filterwarnings("ignore")
WORDS = [
    *("dataset=arrays", "conditioning=vector", "network=unet_tiny", "network.widths=[8]", "network.attention=[]"),
    *("dataset.batch_size=8", "trainer.max_steps=1", "callbacks.preview.n=0", "logger=none", "strategy=cpu"),
]


def folder(root, shift=0.0):
    """A small set with a column `vector` around `shift`."""
    write(root, train=16, val=8)
    for split, n in ("train", 16), ("val", 8):
        np.save(root / split / "vector.npy", (shift + np.arange(n))[:, None].astype(np.float32))
    return root


def test_the_weights_of_another_run_bring_their_statistics(tmp_path, capsys):
    first = [*WORDS, f"dataset.path={folder(tmp_path / 'a')}", f"run.dir={tmp_path / 'first'}"]
    assert command("train", *first, capsys=capsys).code == 0
    line = [*WORDS, f"dataset.path={folder(tmp_path / 'b', shift=100.0)}", f"run.dir={tmp_path / 'second'}"]
    done = command("train", *line, f"resume={tmp_path / 'first'}", "resume_mode=weights", capsys=capsys)
    assert done.code == 0, done.err
    first, second = (
        checkpoint.read(checkpoint.find(tmp_path / name))["config"]["conditioning"] for name in ("first", "second")
    )
    assert first == second
    assert first["vector"]["mean"] == [7.5]


def test_what_the_data_fill_is_not_typed(tmp_path, capsys):
    line = [*WORDS, f"dataset.path={folder(tmp_path / 'a')}", f"run.dir={tmp_path / 'run'}"]
    done = command("train", *line, "conditioning.vector.mean=[5]", capsys=capsys)
    assert done.code == 2
    assert "conditioning.vector.mean has no effect: it is filled from the data" in done.err
    assert not (tmp_path / "run").exists()
