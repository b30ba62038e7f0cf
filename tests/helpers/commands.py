"""The commands, called in this process: a test costs what its training costs, without the imports of a new process."""

import sys
from pathlib import Path
from typing import NamedTuple

from diffusion.commands import cli

TINY = [
    *("dataset=digits", "network=unet_tiny", "network.widths=[8,16]", "dataset.val_images=32", "optimizer.lr=1e-3"),
    *("callbacks.preview.n=2", "callbacks.preview.sampler.steps=2", "validate.every_n_epochs=1"),
    *("logger=none", "strategy=cpu"),
]


def words(*given):
    """The words of a tiny training, and `given`, which win."""
    return list({str(word).partition("=")[0]: str(word) for word in [*TINY, *given]}.values())


def of_today(former):
    """The words of a fixture's run, as they are called now."""
    renamed = [f"callbacks.{word}" if word.startswith("preview.") else word for word in former]
    return ["kernels=off" if word == "kernels=false" else word for word in renamed]


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        return Path(self.out.splitlines()[-1])


def command(name, *words, capsys) -> Done:
    """`python NAME.py WORDS`, as far as one process can."""
    capsys.readouterr()
    argv, sys.argv = sys.argv, [f"{name}.py", *map(str, words)]
    try:
        code = cli.main(name, [str(word) for word in words])
    finally:
        sys.argv = argv
    return Done(code, *capsys.readouterr())
