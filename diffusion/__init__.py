"""Train a denoising diffusion model and sample from it.

>>> import diffusion
>>> run = diffusion.run("train", "dataset=digits", "trainer.max_steps=2000")   # what `python train.py` does
>>> model = diffusion.load(run)                     # a run folder or a checkpoint
>>> x_0 = model.sample(16, seed=0)                  # float (16, C, H, W), in [-1, 1] for a model of images
>>> model.space.decode(x_0)                         # in the units of the dataset: uint8 for images

Every part also works on its own; see "From Python" in the README.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion.clipping import Clip, Dynamic, Static, Unclipped
    from diffusion.commands.cli import run
    from diffusion.data.arrays import Arrays
    from diffusion.data.digits import Digits
    from diffusion.data.image_folder import ImageFolder
    from diffusion.data.torchvision_sets import CIFAR10, MNIST, FashionMNIST
    from diffusion.denoiser import Denoiser, Prediction
    from diffusion.ground import images
    from diffusion.ground.errors import UserError
    from diffusion.guidance import ClassifierFree
    from diffusion.lit.lightning_module import LitDiffusion
    from diffusion.networks.unet import UNet
    from diffusion.optimization.optimizers import AdamW
    from diffusion.parametrization import EDM, X0, Eps, V
    from diffusion.process import q_sample
    from diffusion.runs.checkpoint import load
    from diffusion.samplers.ddim import DDIM
    from diffusion.samplers.ddpm import DDPM
    from diffusion.samplers.dpm_solver_pp import DPMSolverPP
    from diffusion.samplers.euler import Euler
    from diffusion.samplers.heun import Heun
    from diffusion.samplers.unipc import UniPC
    from diffusion.schedule import VP, ContinuousCosine, Schedule, Table, cosine, linear
    from diffusion.spaces.pixels import Pixels
    from diffusion.spaces.standardized import Standardized
    from diffusion.training.callbacks.ema import EMA

# Name -> module. torch and lightning take seconds to import; `--help` and errors in overrides do not need them.
_MODULES = {
    **dict.fromkeys(("Clip", "Dynamic", "Static", "Unclipped"), "clipping"),
    "run": "commands.cli",
    "Arrays": "data.arrays",
    "Digits": "data.digits",
    "ImageFolder": "data.image_folder",
    **dict.fromkeys(("CIFAR10", "MNIST", "FashionMNIST"), "data.torchvision_sets"),
    **dict.fromkeys(("Denoiser", "Prediction"), "denoiser"),
    "UserError": "ground.errors",
    "ClassifierFree": "guidance",
    "LitDiffusion": "lit.lightning_module",
    "UNet": "networks.unet",
    "AdamW": "optimization.optimizers",
    **dict.fromkeys(("EDM", "X0", "Eps", "V"), "parametrization"),
    "q_sample": "process",
    "load": "runs.checkpoint",
    "DDIM": "samplers.ddim",
    "DDPM": "samplers.ddpm",
    "DPMSolverPP": "samplers.dpm_solver_pp",
    "Euler": "samplers.euler",
    "Heun": "samplers.heun",
    "UniPC": "samplers.unipc",
    **dict.fromkeys(("VP", "ContinuousCosine", "Schedule", "Table", "cosine", "linear"), "schedule"),
    "Pixels": "spaces.pixels",
    "Standardized": "spaces.standardized",
    "EMA": "training.callbacks.ema",
}

__all__ = [
    "CIFAR10",
    "DDIM",
    "DDPM",
    "EDM",
    "EMA",
    "MNIST",
    "VP",
    "X0",
    "AdamW",
    "Arrays",
    "ClassifierFree",
    "Clip",
    "ContinuousCosine",
    "DPMSolverPP",
    "Denoiser",
    "Digits",
    "Dynamic",
    "Eps",
    "Euler",
    "FashionMNIST",
    "Heun",
    "ImageFolder",
    "LitDiffusion",
    "Pixels",
    "Prediction",
    "Schedule",
    "Standardized",
    "Static",
    "Table",
    "UNet",
    "Unclipped",
    "UniPC",
    "UserError",
    "V",
    "cosine",
    "images",
    "linear",
    "load",
    "q_sample",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("diffusion")
    if name == "images":
        return importlib.import_module("diffusion.ground.images")
    if name in _MODULES:
        return getattr(importlib.import_module(f"diffusion.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'diffusion' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
