"""diffusers' `UNet2DModel` and `DDPMPipeline` folders, without diffusers."""

from pathlib import Path
from typing import Any

from diffusion.interop.foreign import Foreign


def recognises(path: Path, contents: Any) -> bool:
    """A folder with a config.json of a UNet2DModel, or with a model_index.json."""
    return path.is_dir() and any((path / name).is_file() for name in ("model_index.json", "config.json"))


def read(path: Path) -> Foreign:
    """The model of a folder."""
    raise NotImplementedError
