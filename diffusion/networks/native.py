"""Kernels in C++ for the network on a CPU: `native.cpp`, compiled on first use where there is a compiler.

Without one, in another precision and on every other device, the same is done by torch's own operations.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffusion.ground.errors import UserError

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ["-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared"]
HEAD_WIDTHS = (4, 8, 16)  # with more channels torch's own attention is as fast

enabled = True  # False: torch's own operations everywhere


def use(kernels: str | bool) -> None:
    """`auto`: the kernels, where they can be compiled; True: raises UserError where they cannot; False: not at all."""
    global enabled
    enabled = kernels is not False
    if kernels is True:
        try:
            _compiled()
        except UserError as error:
            raise UserError(f"kernels=true: {error}") from None


def serves(x: Tensor) -> bool:
    """Whether the kernels can take x: a plain float32 tensor on a CPU, and no compiler of torch is looking on."""
    plain = type(x) is Tensor and x.is_cpu and x.dtype == torch.float32
    return enabled and plain and not torch.compiler.is_compiling() and library() is not None


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None, and a line that says so, without a compiler."""
    try:
        return _compiled()
    except UserError as error:
        logging.getLogger(__name__).warning("the network is slower than it could be on this CPU: %s", error)
        return None


def _compiled() -> ctypes.CDLL:
    """From the cache where they are there. Raises UserError where they cannot be compiled."""
    compiler = os.environ.get("CXX", "").strip() or "c++"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "diffusion"
    try:
        command = [*_words(compiler), *FLAGS]
        # A cache may be shared by machines of different kinds, and `native` is of this one.
        machine = [platform.node(), platform.machine(), torch.backends.cpu.get_cpu_capability()]
        made_of = [SOURCE.read_bytes(), *map(str.encode, [*command, *machine])]
        file = folder / f"native-{hashlib.sha256(b' '.join(made_of)).hexdigest()[:16]}.so"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as part:
                subprocess.run([*command, SOURCE, "-o", f"{part}/native.so"], check=True, capture_output=True)
                os.replace(f"{part}/native.so", file)
        return ctypes.CDLL(str(file))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"{compiler} does not compile the network's kernels into {folder} ({_reason(error)}); let CXX name a C++ "
            "compiler with OpenMP and XDG_CACHE_HOME a folder, or say kernels=false"
        ) from error


def _words(compiler: str) -> list[str]:
    """What $CXX holds, as make takes it: a program, or several words such as `ccache g++`. A path may have spaces."""
    return [compiler] if shutil.which(compiler) else shlex.split(compiler)


def _reason(error: Exception) -> str:
    said = (getattr(error, "stderr", None) or b"").decode(errors="replace").split("\n")
    return next(filter(str.strip, said), str(error))


def _call(name: str, *arguments: Tensor | int | float) -> None:
    getattr(library(), name)(*map(_in_c, arguments), torch.get_num_threads())


def _in_c(x: Tensor | int | float) -> ctypes.c_void_p | ctypes.c_float | int:
    if isinstance(x, Tensor):
        return ctypes.c_void_p(x.data_ptr())
    return ctypes.c_float(x) if isinstance(x, float) else x


class SmallHeads(torch.autograd.Function):
    """Attention of qkv (B, 3, heads, d, N), d being one of HEAD_WIDTHS. Returns (B, heads, d, N)."""

    @staticmethod
    def forward(ctx, qkv: Tensor) -> Tensor:
        qkv = qkv.contiguous()
        batch, _, heads, d, n = qkv.shape
        out, log_sum = qkv.new_empty(batch, heads, d, n), qkv.new_empty(batch, heads, n)
        _call(f"attention_{d}", qkv, out, log_sum, batch, heads, n)
        ctx.save_for_backward(qkv, out, log_sum)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out: Tensor) -> Tensor:
        qkv, out, log_sum = ctx.saved_tensors
        batch, _, heads, d, n = qkv.shape
        d_qkv = torch.empty_like(qkv)
        _call(f"attention_backward_{d}", qkv, out, log_sum, d_out.contiguous(), d_qkv, batch, heads, n)
        return d_qkv


class NormSilu(torch.autograd.Function):
    """silu(group_norm(x, groups, scale, bias, eps)) of x (B, C, H, W), of which only x is kept for the way back."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        x = x.contiguous()
        sizes = len(x), groups, x.shape[1] // groups, x.shape[2:].numel()
        out, (mean, inverse) = torch.empty_like(x), x.new_empty(2, len(x), groups)
        _call("norm_silu", x, scale, bias, out, mean, inverse, eps, *sizes)
        ctx.save_for_backward(x, scale, bias, mean, inverse)
        ctx.sizes = sizes
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, bias, mean, inverse = ctx.saved_tensors
        d_x, (d_scale, d_bias) = torch.empty_like(x), x.new_empty(2, *x.shape[:2])
        _call("norm_silu_backward", x, scale, bias, mean, inverse, d_out.contiguous(), d_x, d_scale, d_bias, *ctx.sizes)
        return d_x, d_scale.sum(0), d_bias.sum(0), None, None
