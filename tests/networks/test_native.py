"""The kernels in C++ against torch's operations in float64, and what happens without a compiler."""

import subprocess

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffusion.ground.errors import UserError
from diffusion.networks import native
from diffusion.networks.attention import attend
from diffusion.networks.blocks import norm_silu
from diffusion.networks.unet import UNet

compiled = pytest.mark.skipif(native.library() is None, reason="no C++ compiler here")


def normal(*shape, scale=1.0):
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))).requires_grad_()


def same_with_gradients(kernel, exact, *inputs, tolerance=2e-6):
    """float32 values and gradients of `kernel` against those of `exact` in float64, in units of the largest."""
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    out, expected = kernel(*inputs), exact(*doubles)
    d_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(out, inputs, d_out), torch.autograd.grad(expected, doubles, d_out.double())
    for a, b in zip([out, *gradients[0]], [expected, *gradients[1]], strict=True):
        assert a.dtype == torch.float32
        assert (a - b).abs().max() <= tolerance * b.abs().max()


def softmax_attention(qkv):
    q, k, v = qkv.unbind(1)
    return v @ torch.softmax(q.mT @ k * q.shape[2] ** -0.5, dim=3).mT


@compiled
@pytest.mark.parametrize("d", native.HEAD_WIDTHS)
@pytest.mark.parametrize("n", [1, 16, 49, 64])  # below, at and between multiples of the lanes
def test_attention(d, n):
    same_with_gradients(native.SmallHeads.apply, softmax_attention, normal(2, 3, 5, d, n))


@compiled
def test_attention_with_scores_of_thousands():
    qkv = normal(2, 3, 5, 8, 20, scale=30.0)
    assert (qkv[:, 0].mT @ qkv[:, 1]).abs().max() > 3000
    same_with_gradients(native.SmallHeads.apply, softmax_attention, qkv, tolerance=2e-4)


@compiled
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 16)])
@pytest.mark.parametrize("shift", [0.0, 30.0])  # of the bias: SiLU at both ends
def test_norm_silu(size, shift):
    x, scale, bias = normal(3, 12, *size), normal(12), (normal(12).detach() * shift).requires_grad_()

    def exact(x, scale, bias):
        return F.silu(F.group_norm(x, 4, scale, bias, 1e-5))

    same_with_gradients(lambda *x: native.NormSilu.apply(*x, 4, 1e-5), exact, x, scale, bias, tolerance=1e-5)


@compiled
def test_one_and_two_threads_give_the_same_bits():
    qkv, x, threads = normal(3, 3, 5, 8, 20), normal(3, 8, 5, 5), torch.get_num_threads()
    found = []
    try:
        for count in 1, 2:
            torch.set_num_threads(count)
            attended, activated = native.SmallHeads.apply(qkv), norm_silu(nn.GroupNorm(2, 8), x)
            loss = attended.square().sum() + activated.square().sum()
            found.append([attended, activated, *torch.autograd.grad(loss, [qkv, x])])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@compiled
def test_not_a_number_stays_one():
    qkv, x = normal(1, 3, 1, 8, 20).detach(), normal(2, 8, 5, 5).detach()
    qkv[..., 3], x[1, 0, 0, 0] = float("nan"), float("nan")
    activated = norm_silu(nn.GroupNorm(1, 8), x)
    assert attend(qkv).isnan().all()
    assert activated[1].isnan().all()
    assert activated[0].isfinite().all()


def network():
    made = UNet(1, 1, 16, widths=(8, 16), layers=1, attention=(8,), head_width=8, norm_groups=4)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    return made


@compiled
def test_the_network_with_and_without(monkeypatch):
    made, x, t, calls = network(), normal(2, 1, 16, 16), torch.tensor([3.0, 700.0]), []
    monkeypatch.setattr(native, "_call", lambda name, *x, real=native._call: calls.append(name) or real(name, *x))
    found = []
    for enabled in True, False:
        monkeypatch.setattr(native, "enabled", enabled)
        out = made(x, t)
        found.append([out, *torch.autograd.grad(out.square().sum(), list(made.parameters()))])
        if enabled:
            assert set(calls) == {"attention_8", "attention_backward_8", "norm_silu", "norm_silu_backward"}
            calls.clear()
    assert not calls
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max().clamp(min=1e-3)


@compiled
def test_what_the_kernels_do_not_serve():
    x = torch.ones(1)
    assert native.serves(x)
    assert not native.serves(x.double())
    assert not native.serves(x.bfloat16())
    assert not native.serves(x.to("meta"))
    assert not native.serves(nn.Parameter(x))  # nor any other subclass


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """`native.library` as a new process would find it, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    yield tmp_path / "diffusion"
    native.library.cache_clear()


@compiled
def test_compiled_once(fresh, monkeypatch):
    assert native.library() is not None
    [file] = fresh.iterdir()
    native.library.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert native.library() is not None
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
def test_cxx_may_be_several_words(fresh, monkeypatch, wrapper, command):
    monkeypatch.setenv("CXX", command.format(wrapper))
    assert native.library() is not None
    assert wrapper.with_name("wrapper.log").read_text().startswith("c++ ")


@compiled
def test_cxx_may_be_a_path_with_spaces(fresh, monkeypatch, wrapper):
    wrapper.write_text('#!/bin/sh\nexec c++ "$@"\n')
    monkeypatch.setenv("CXX", str(wrapper))
    assert native.library() is not None


@compiled
@pytest.mark.parametrize("nothing", ["", " "])
def test_an_empty_cxx_is_none(fresh, monkeypatch, nothing):
    monkeypatch.setenv("CXX", nothing)
    assert native.library() is not None


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "no-such-cache g++", "g++ 'not closed"])
def test_without_a_compiler_it_says_so_and_goes_on(fresh, monkeypatch, caplog, compiler):
    monkeypatch.setenv("CXX", compiler)
    assert native.library() is None
    assert native.library() is None
    [record] = caplog.records
    assert f": {compiler} does not compile the network's kernels" in record.getMessage()
    assert not list(fresh.glob("*"))
    assert network()(torch.zeros(1, 1, 16, 16), torch.ones(1)).isfinite().all()


def test_kernels_that_are_asked_for_and_cannot_be_compiled_are_one_line(fresh, monkeypatch):
    monkeypatch.setattr(native, "enabled", True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"kernels=true: no-such-compiler does not compile .* say kernels=false"):
        native.use(True)
    native.use("auto")
    assert native.enabled
    native.use(False)
    assert not native.enabled


def test_a_compiler_that_fails_without_a_word(fresh, monkeypatch, caplog, wrapper):
    wrapper.write_text("#!/bin/sh\necho >&2\nexit 1\n")
    monkeypatch.setenv("CXX", f"'{wrapper}'")
    assert native.library() is None
    assert "returned non-zero exit status 1" in caplog.records[0].getMessage()
