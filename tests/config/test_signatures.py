"""Signatures: what a constructor takes, read off its source, in every way in which such a thing is written."""

import math
import subprocess
import sys
import time

import pytest

from diffusion.config import registry
from diffusion.config.signatures import REST, Default, parameters
from diffusion.ground.errors import UserError

FILES = {
    "__init__.py": "from .parts import Sharper as Sharp\nfrom . import parts\nfrom .words import *\n",
    "words.py": '''
from typing import Annotated, Literal, TypedDict
from annotated_types import Ge, Interval
Count = Annotated[int, Ge(1)]
Share = Annotated[float, Interval(gt=0, le=1)]
Mode = Literal["a", "b"]
class Place(TypedDict, total=False):
    """A section."""
    folder: "str | None"
class Run(Place):
    seed: Count
''',
    "base.py": """
from __future__ import annotations
from abc import ABC
from dataclasses import dataclass, field, KW_ONLY
from typing import ClassVar
import typing as t
from own.words import Count, Run
from torch import Tensor
_HALF = 1 / 2
class Base(ABC):
    def __init__(self, n: Count, *, share: float = _HALF, x: Tensor = None, **rest):
        print(rest)
@dataclass(frozen=True)
class Described(ABC):
    yields: ClassVar[str]
    name: str = "x"
    low: float = -float("inf")
    hidden: int = field(default=3, init=False)
    items: t.Sequence[Count] = field(default_factory=list)
""",
    "parts.py": """
import dataclasses
from pathlib import Path
from typing import Optional, TYPE_CHECKING, Union
from . import base, words as w
from .base import Base
if TYPE_CHECKING:
    from .base import Described
else:
    Described = base.Described
try:
    from .words import Mode
except ImportError:
    Mode = None
Amount = w.Count | None
class Sharper(Base):
    def __init__(self, amount: Amount = 3, mode: "Mode" = "a", *, share=None, **rest):
        super().__init__(n=amount, **rest)
class Plain(Sharper):
    pass
@dataclasses.dataclass(frozen=True)
class More(Described):
    share: w.Share = 0.5
    path: Optional[Path] = None
    name: str = "y"
class Empty:
    @classmethod
    def of(cls, n: int) -> "Empty": ...
Other = Plain
def make(steps: Union[int, None], x, run: w.Run, *names: str, odd=print()) -> Base: ...
""",
    "broken.py": "def f(:\n",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of a user's own."""
    for name, text in FILES.items():
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "own"


def kinds(target):
    return {name: each.kind and each.kind.description for name, each in parameters(target).items()}


def defaults(target):
    return {name: each.default for name, each in parameters(target).items()}


SHARPER = {"amount": "a whole number, 1 or more, or null", "mode": "a or b", "share": None, "x": None, REST: None}


@pytest.mark.parametrize("target", ["own.parts.Sharper", "own.parts.Plain", "own.parts.Other", "own.Sharp"])
def test_a_class_hands_on_what_it_does_not_name(own, target):
    assert kinds(target) == SHARPER
    assert defaults(target) == {"amount": 3, "mode": "a", "share": None, "x": None, REST: Default.REQUIRED}


def test_a_constructor_that_takes_any_name(own):
    assert kinds("own.base.Base") == {"n": "a whole number, 1 or more", "share": "a number", "x": None, REST: None}
    assert defaults("own.base.Base")["share"] == 0.5


def test_a_dataclass_has_the_fields_of_its_bases(own):
    assert kinds("own.parts.More") == {
        "name": "a text",
        "low": "a number",
        "items": "a list such as [a,b], each a whole number, 1 or more",
        "share": "a number above 0 and at most 1",
        "path": "a path, or null",
    }
    assert defaults("own.parts.More") == {"name": "y", "low": -math.inf, "items": [], "share": 0.5, "path": None}


def test_a_function_and_sections_within_sections(own):
    found = parameters("own.parts.make")
    assert list(found) == ["steps", "x", "run", "odd"]
    assert kinds("own.parts.make") == {"steps": "a whole number, or null", "x": None, "run": "a section", "odd": None}
    assert {name: each.kind.description for name, each in found["run"].nested.items()} == {
        "folder": "a text, or null",
        "seed": "a whole number, 1 or more",
    }
    assert found["x"].default is Default.REQUIRED
    assert found["odd"].default is Default.COMPUTED


def test_a_section_itself_and_names_from_everywhere(own):
    assert (
        kinds("own.words.Run") == kinds("own.Run") == {"folder": "a text, or null", "seed": "a whole number, 1 or more"}
    )


def test_a_class_method_and_a_class_without_a_constructor(own):
    assert kinds("own.parts.Empty.of") == {"n": "a whole number"}
    assert kinds("own.parts.Empty") == {}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.Sharper", "nowhere.Sharper: no module nowhere is installed, or in a folder of Python's path"),
        ("own.part.Sharper", "own.part.Sharper: .*__init__.py has no part in it"),
        ("own.parts.Sharpr", "own.parts.Sharpr: .*parts.py has no Sharpr in it; did you mean Sharper?"),
        ("own.parts.Sharper.of", "own.parts.Sharper.of: no of in own.parts.Sharper"),
        ("own.broken.f", "broken.py: cannot be read as Python"),
        ("own.words.Count", "own.words.Count: neither a class nor a function in .*words.py"),
        ("os.system", "os.system: expected MODULE.NAME, with a module in Python source"),
        ("Sharper", "Sharper: no module Sharper is installed"),
    ],
)
def test_a_mistake_is_one_line(own, target, message):
    with pytest.raises(UserError, match=message) as error:
        parameters(target)
    assert "\n" not in str(error.value)


def test_signatures_of_other_libraries():
    assert kinds("lightning.pytorch.strategies.ddp.DDPStrategy") == kinds("lightning.pytorch.strategies.DDPStrategy")
    found = kinds("lightning.pytorch.strategies.DDPStrategy")
    assert found["start_method"] == "popen, spawn, fork or forkserver"
    assert found["process_group_backend"] == "a text, or null"
    assert REST in found


def test_nothing_is_imported_and_it_is_quick():
    code = f"""
import sys, time
from diffusion.config.signatures import parameters
start = time.perf_counter()
for target in {list(registry.registered())}:
    parameters(target)
print(time.perf_counter() - start)
parameters("lightning.pytorch.strategies.ddp.DDPStrategy")
print(sorted({{"torch", "lightning", "numpy", "wandb"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert float(seconds) < 1  # all that conf/ names; 0.06 on an idle CPU


def test_it_is_read_once(own):
    parameters("own.parts.make")
    start = time.perf_counter()
    for _ in range(1000):
        parameters("own.parts.make")
    assert time.perf_counter() - start < 1
