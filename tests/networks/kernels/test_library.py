"""The library of kernels is compiled once; what happens without a compiler."""

import subprocess

import pytest
import torch

from diffusion.networks.kernels import library
from tests.helpers.kernels import compiled, network


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """`library.library` as a new process would find it, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.library.cache_clear()
    yield tmp_path / "diffusion"
    library.library.cache_clear()


@compiled
def test_compiled_once(fresh, monkeypatch):
    assert library.library() is not None
    [file] = fresh.iterdir()
    library.library.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert library.library() is not None
    assert list(fresh.iterdir()) == [file]


@pytest.fixture
def wrapper(tmp_path):
    """A program in a folder with a space that notes its arguments, and runs them."""
    path = tmp_path / "my tools" / "wrapper"
    path.parent.mkdir()
    path.write_text('#!/bin/sh\necho "$@" >> "$0.log"\nexec "$@"\n')
    path.chmod(0o755)
    return path


@compiled
@pytest.mark.parametrize("command", ["'{}' c++", "'{}' c++ -DNOTHING='1 2'"])
def test_cxx_may_be_a_command_line(fresh, monkeypatch, wrapper, command):
    monkeypatch.setenv("CXX", command.format(wrapper))
    assert library.library() is not None
    assert wrapper.with_name("wrapper.log").read_text().startswith("c++ ")


@compiled
def test_cxx_may_be_a_path_with_spaces(fresh, monkeypatch, wrapper):
    wrapper.write_text('#!/bin/sh\nexec c++ "$@"\n')
    monkeypatch.setenv("CXX", str(wrapper))
    assert library.library() is not None


@compiled
@pytest.mark.parametrize("nothing", ["", " "])
def test_an_empty_cxx_is_none(fresh, monkeypatch, nothing):
    monkeypatch.setenv("CXX", nothing)
    assert library.library() is not None


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "no-such-cache g++", "g++ 'not closed"])
def test_a_missing_compiler_is_reported_and_not_fatal(fresh, monkeypatch, caplog, compiler):
    monkeypatch.setenv("CXX", compiler)
    assert library.library() is None
    assert library.library() is None
    [record] = caplog.records
    assert f": {compiler} does not compile the network's kernels" in record.getMessage()
    assert not list(fresh.glob("*"))
    assert network()(torch.zeros(1, 1, 16, 16), torch.ones(1)).isfinite().all()


def test_a_compiler_that_fails_without_output(fresh, monkeypatch, caplog, wrapper):
    wrapper.write_text("#!/bin/sh\necho >&2\nexit 1\n")
    monkeypatch.setenv("CXX", f"'{wrapper}'")
    assert library.library() is None
    assert "returned non-zero exit status 1" in caplog.records[0].getMessage()
