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


def tiny(*overrides):
    """The overrides of a tiny training; those that are given win."""
    return list({str(word).partition("=")[0]: str(word) for word in [*TINY, *overrides]}.values())


def renamed(former):
    """The overrides of a fixture's run under their current names."""
    found = [f"callbacks.{word}" if word.startswith("preview.") else word for word in former]
    return ["kernels=off" if word == "kernels=false" else word for word in found]


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        return Path(self.out.splitlines()[-1])


def command(name, *overrides, capsys) -> Done:
    """`python NAME.py OVERRIDES`, as far as one process can."""
    capsys.readouterr()
    argv, sys.argv = sys.argv, [f"{name}.py", *map(str, overrides)]
    try:
        code = cli.main(name, [str(word) for word in overrides])
    finally:
        sys.argv = argv
    return Done(code, *capsys.readouterr())
