"""A safetensors file with the weights of our network by our names, and the config as JSON in the header."""

from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from diffusion.config import upgrades
from diffusion.ground.errors import reading
from diffusion.ground.files import atomic, json_contents, json_text
from diffusion.interop.foreign import Foreign, load
from diffusion.lit.lightning_module import LitDiffusion

_CONFIG, _FORMAT = "diffusion.config", "diffusion.format"  # in the header


def recognises(path: Path, contents: Any) -> bool:
    """Whether the file is a safetensors file with our config in its header."""
    return path.suffix == ".safetensors" and _CONFIG in _header(path)


def read(path: Path) -> Foreign:
    """The model in a file written by `write`. Raises UserError if its config is not ours."""
    with reading(path, "a file with a config of this program"):
        header = _header(path)
        contents = {upgrades.KEY: int(header.get(_FORMAT, 0)), "config": json_contents(header[_CONFIG])}
        config = upgrades.upgraded(contents, path)["config"]
    return Foreign(config, load(path))


def write(model: LitDiffusion, file: Path) -> None:
    """Writes the current weights of the model, and its config."""
    weights = {name: weight.contiguous() for name, weight in model.denoiser.network.state_dict().items()}
    stamp = upgrades.stamped(model.config)
    header = {"format": "pt", _FORMAT: str(stamp[upgrades.KEY]), _CONFIG: json_text(stamp["config"], indent=None)}
    with atomic(file) as temporary:
        safetensors.torch.save_file(weights, temporary, header)


def _header(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, framework="pt") as file:
        return file.metadata() or {}
