"""Export of the network to ONNX.

Inputs: x_t, float32 (batch, C, H, W); t, float32 (batch,), the paper's t, 1..T; y, int64 (batch,), -1 for none, if the
network is conditioned on classes; x_0_before, like x_t, 0 in the first step, if it is self-conditioned.
Output: `output`, the prediction for x_t: eps, x_0, v or EDM's F, followed by the variance channels, if any. The
scaling by c_in of EDM and t - 1 are included. The metadata has the number of our format and the config as JSON, which
determines the betas.
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
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.networks.kernels.choice import without_kernels


class Output(nn.Module):
    """The raw output of a denoiser, with named arguments."""

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
    """Writes the network with the current weights of the model; the batch may have any size.

    Raises UserError if the packages that write ONNX are missing, and for a network with other conditions.
    """
    if others := sorted(model.conditioning.keys() - {"label", PREVIOUS}):
        raise UserError(f"to=onnx: there is no input for the condition {', '.join(others)} of this network")
    for package in "onnx", "onnxscript":
        _needed(package)
    inputs = {"x_t": torch.zeros(2, *model.shape), "t": torch.ones(2)}
    if model.classes is not None:
        inputs["y"] = torch.zeros(2, dtype=torch.int64)
    if PREVIOUS in model.conditioning:
        inputs["x_0_before"] = torch.zeros(2, *model.shape)
    batch = torch.export.Dim("batch")
    with atomic(file) as temporary, without_kernels(model), warnings.catch_warnings():
        # Expected: all inputs have the same batch size, and each but the first gives this warning.
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
