"""The trained model that a command opens: `ckpt`, `weights`, `accelerator`, `kernels` and `compile` of its config."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

from diffusion.config.value_types import Count, File, Kernels
from diffusion.config.value_types import Weights as WeightsName
from diffusion.ground.device import device_of
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.networks.compilation import compile_network
from diffusion.networks.kernels.choice import use_kernels
from diffusion.runs import checkpoint
from diffusion.runs.weights import Weights


class DeviceKeys(TypedDict):
    """The keys of a command that may open a trained model."""

    weights: WeightsName
    output: File | None
    batch_size: Count
    accelerator: str
    kernels: Kernels
    compile: bool


class TrainedKeys(DeviceKeys):
    """The keys of a command that opens a trained model."""

    ckpt: File


@dataclass(frozen=True)
class Trained:
    """A model in eval mode on its device, its checkpoint file `ckpt`, and that file's contents.

    weights: the weights that the model has, as on the command line.
    """

    model: LitDiffusion
    ckpt: Path
    contents: dict[str, Any]
    weights: str | float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Trained":
        """Raises UserError for a missing checkpoint, weights or device."""
        ckpt, contents = checkpoint.opened(config["ckpt"])
        model = checkpoint.trained(contents, ckpt, Weights.of(config["weights"]), device_of(config["accelerator"]))
        use_kernels(model, config["kernels"] == "auto")
        if config["compile"]:
            compile_network(model.denoiser.network, model.device)
        return cls(model, ckpt, contents, config["weights"])

    def settings(self) -> dict[str, Any]:
        """The entries of samples.json about the model."""
        return {
            "checkpoint": str(self.ckpt),
            "weights": self.weights,
            "weights_sha256": checkpoint.weights_sha256(self.model.denoiser),
        }

    def output(self, folder: str | None) -> Path:
        """The folder for samples; None means a new one in the run folder."""
        if folder:
            return Path(folder)
        return checkpoint.run_folder(self.ckpt) / "generated" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
