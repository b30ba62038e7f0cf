"""Files of strangers, by every reader of what torch.save wrote: nothing in them is run, each is refused in one line."""

import os
import pickle

import pytest
import torch

from diffusion.ground.errors import UserError
from diffusion.interop import lucidrains, openai

READERS = {
    "openai": lambda path: openai.read(path, size=32, schedule="cosine", T=1000, heads=1),
    "lucidrains": lambda path: lucidrains.read(path, size=32),
}
OPENAI = {"time_embed.0.weight": torch.zeros(4, 1), "input_blocks.0.0.weight": torch.zeros(4, 3, 3, 3)}
UP = {"out.2.weight": torch.zeros(3, 4), "output_blocks.0.0.in_layers.2.weight": torch.zeros(1)}
LUCID = {"model.init_conv.weight": torch.zeros(1)}


class Touches:
    """Unpickled, it would run a command that writes the file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("write", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap, protocol=2))])
def test_a_pickle_is_not_executed(read, write, tmp_path):
    write({"model": Touches(tmp_path / "touched"), "time_embed.0.weight": 0}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"model\.pt: ") as caught:
        read(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists()


CONTENTS = {
    "a list": [torch.zeros(1)],
    "names that are numbers": {1: torch.zeros(1)},
    "nothing": {},
    "openai: what should be tensors": dict.fromkeys(OPENAI | UP, "text"),
    "openai: tensors without dimensions": dict.fromkeys(OPENAI | UP, torch.tensor(1.0)),
    "openai: a block that is no number": OPENAI | UP | {"output_blocks.x.0": torch.zeros(1)},
    "openai: a block beyond all others": OPENAI | UP | {"output_blocks.1000000000.0": torch.zeros(1)},
    "openai: names that are numbers": OPENAI | UP | {1: torch.zeros(1)},
    "openai: no width": OPENAI | UP | {"time_embed.0.weight": torch.zeros(0, 0)},
    "lucidrains: a list for a state dict": {"model": list(LUCID)},
    "lucidrains: what should be tensors": {"model": dict.fromkeys(LUCID, "text")},
    "lucidrains: a text for the average": {"model": LUCID, "ema": "text"},
    "lucidrains: a tensor alone": {"model": LUCID},
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("contents", CONTENTS.values(), ids=CONTENTS.keys())
def test_strange_contents_are_refused_in_one_line(read, contents, tmp_path):
    torch.save(contents, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"model\.pt: ") as caught:
        read(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:-200], lambda whole: b"plain text\n" * 9])
def test_damaged_files_are_refused_in_one_line(read, damage, tmp_path):
    torch.save(OPENAI | UP, tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes(damage((tmp_path / "model.pt").read_bytes()))
    with pytest.raises(UserError, match=r"model\.pt: ") as caught:
        read(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_a_file_that_is_not_there(read, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pt: "):
        read(tmp_path / "nowhere.pt")
