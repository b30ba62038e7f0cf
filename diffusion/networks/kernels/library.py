"""The C++ kernels of `kernels.cpp`, compiled on first use if there is a compiler.

Without a compiler, in other precisions and on other devices, the reference implementations are used.
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
    """Whether the C++ kernels can process x."""
    return is_float32(x) and is_compiled()


def is_float32(x: Tensor) -> bool:
    """Whether x is a float32 tensor on a CPU."""
    return x.is_cpu and x.dtype == torch.float32


@torch.compiler.assume_constant_result  # torch.compile does not trace it
def is_compiled() -> bool:
    """Whether there is a compiled library."""
    return library() is not None


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None, with a logged warning, if they cannot be compiled."""
    try:
        return _compiled()
    except UserError as error:
        logging.getLogger(__name__).warning("the network is slower than it could be on this CPU: %s", error)
        return None


def _compiled() -> ctypes.CDLL:
    """The kernels from the cache, or newly compiled. Raises UserError if they cannot be compiled."""
    compiler = os.environ.get("CXX", "").strip() or "c++"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "diffusion"
    try:
        command = [*_command(compiler), *FLAGS]
        # Machines of different kinds may share a cache, and `-march=native` depends on the machine.
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
            f"{compiler} does not compile the network's kernels into {folder} ({_reason(error)}); set CXX to a C++ "
            "compiler with OpenMP and XDG_CACHE_HOME to a folder, or set kernels=off"
        ) from error


def _command(compiler: str) -> list[str]:
    """$CXX as a command, as in make: a program, or a command line such as `ccache g++`. A path may have spaces."""
    return [compiler] if shutil.which(compiler) else shlex.split(compiler)


def _reason(error: Exception) -> str:
    lines = (getattr(error, "stderr", None) or b"").decode(errors="replace").split("\n")
    return next(filter(str.strip, lines), str(error))


def call(name: str, *arguments: Tensor | int | float) -> None:
    """Calls a function of kernels.cpp, with the number of threads as last argument. Tensors are contiguous float32.

    Raises UserError if there is no library, for an operator in a program that was exported elsewhere.
    """
    getattr(library() or _compiled(), name)(*map(_in_c, arguments), torch.get_num_threads())


def _in_c(x: Tensor | int | float) -> ctypes.c_void_p | ctypes.c_float | int:
    if isinstance(x, Tensor):
        return ctypes.c_void_p(x.data_ptr())
    return ctypes.c_float(x) if isinstance(x, float) else x
