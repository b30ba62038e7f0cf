"""The network as ONNX, for any runtime.

Inputs: x_t, float32 (batch, C, H, W); t, float32 (batch,), the paper's t, 1..T; where the network is conditioned on
classes, y, int64 (batch,), -1 for none; where it is self-conditioned, x_0_before, like x_t, 0 in the first step.
Output: `output`, what the network says of x_t: eps, x_0, v or EDM's F, and then the variance channels where it has
them. What stands around the network, c_in of EDM and t - 1, is inside. The metadata has the number of our format and
the config as JSON, and the betas follow from it.
"""

import importlib
import warnings
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from diffusion.conditioners.condition import PREVIOUS, Condition
from diffusion.config import upgrades
from diffusion.denoiser import Denoiser
from diffusion.ground.errors import UserError
from diffusion.ground.files import atomic, json_text
from diffusion.lit.module import LitDiffusion
from diffusion.networks.kernels.choice import without_kernels


class Output(nn.Module):
    """The bare output of a denoiser, with arguments that have names."""

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None, x_0_before: Tensor | None = None) -> Tensor:
        condition = Condition(x_t.shape[0])
        if y is not None:
            condition = condition.also(label=y.clamp(min=0)).without(y < 0)
        if x_0_before is not None:
            condition = condition.also(**{PREVIOUS: x_0_before})
        return self.denoiser.output(x_t, t, condition)


def write(model: LitDiffusion, file: Path) -> None:
    """Writes the network with the weights that the model has; the batch may have any size.

    Raises UserError where the packages that write ONNX are missing, and for a network that is given anything else.
    """
    if others := sorted(model.conditioning.keys() - {"label", PREVIOUS}):
        raise UserError(f"to=onnx: there is no input for {', '.join(others)}, which this network is given")
    for package in "onnx", "onnxscript":
        _needed(package)
    inputs = {"x_t": torch.zeros(2, *model.shape), "t": torch.ones(2)}
    if model.classes is not None:
        inputs["y"] = torch.zeros(2, dtype=torch.int64)
    if PREVIOUS in model.conditioning:
        inputs["x_0_before"] = torch.zeros(2, *model.shape)
    batch = torch.export.Dim("batch")
    with atomic(file) as temporary, without_kernels(model), warnings.catch_warnings():
        # It means that all inputs have the same batch, and is said of each but the first.
        warnings.filterwarnings("ignore", message="# The axis name: batch will not be used")
        program = torch.onnx.export(
            Output(model.denoiser).eval(),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=["output"],
            dynamic_shapes={name: {0: batch} for name in inputs},
            dynamo=True,
            verbose=False,
        )
        assert program is not None  # of dynamo=True
        stamp = upgrades.stamped(model.config)
        program.model.metadata_props["diffusion.format"] = str(stamp[upgrades.KEY])
        program.model.metadata_props["diffusion.config"] = json_text(stamp["config"], indent=None)
        program.save(temporary)


def _needed(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"to=onnx needs the package {package}: pip install -e '.[onnx]'") from None
