"""The kernels in C++: `kernels.cpp`, compiled on first use where there is a compiler.

Without a compiler, in another precision and on every other device, the plain twins do the same.
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

from diffusion.ground.errors import UserError

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ["-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared"]


def serves(x: Tensor) -> bool:
    """Whether the kernels in C++ can take x."""
    return is_float32(x) and is_compiled()


def is_float32(x: Tensor) -> bool:
    """On a CPU."""
    return x.is_cpu and x.dtype == torch.float32


@torch.compiler.assume_constant_result  # what compiles a network does not look inside
def is_compiled() -> bool:
    """Whether there is a compiled library."""
    return library() is not None


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None, and a printed line, without a compiler."""
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
        # A cache may be shared by machines of different kinds, and `-march=native` is of this one.
        machine = [platform.node(), platform.machine(), torch.backends.cpu.get_cpu_capability()]
        made_of = [SOURCE.read_bytes(), *map(str.encode, [*command, *machine])]
        file = folder / f"kernels-{hashlib.sha256(b' '.join(made_of)).hexdigest()[:16]}.so"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as part:
                subprocess.run([*command, SOURCE, "-o", f"{part}/kernels.so"], check=True, capture_output=True)
                os.replace(f"{part}/kernels.so", file)
        return ctypes.CDLL(str(file))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"{compiler} does not compile the network's kernels into {folder} ({_reason(error)}); let CXX name a C++ "
            "compiler with OpenMP and XDG_CACHE_HOME a folder, or say kernels=off"
        ) from error


def _words(compiler: str) -> list[str]:
    """What $CXX holds, as make takes it: a program, or several words such as `ccache g++`. A path may have spaces."""
    return [compiler] if shutil.which(compiler) else shlex.split(compiler)


def _reason(error: Exception) -> str:
    said = (getattr(error, "stderr", None) or b"").decode(errors="replace").split("\n")
    return next(filter(str.strip, said), str(error))


def call(name: str, *arguments: Tensor | int | float) -> None:
    """A function of kernels.cpp; its last argument is the number of threads. Tensors are contiguous, in float32.

    Raises UserError where there is no library: for an operator in a program that was exported elsewhere.
    """
    getattr(library() or _compiled(), name)(*map(_in_c, arguments), torch.get_num_threads())


def _in_c(x: Tensor | int | float) -> ctypes.c_void_p | ctypes.c_float | int:
    if isinstance(x, Tensor):
        return ctypes.c_void_p(x.data_ptr())
    return ctypes.c_float(x) if isinstance(x, float) else x
